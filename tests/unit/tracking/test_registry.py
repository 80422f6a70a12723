"""Versions, aliases and the gate in a real store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from clipgan.errors import RegistryError
from clipgan.metrics.values import parse_value
from clipgan.tracking.mlflow_store import open_client, sqlite_path
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.promotion import promote_version
from clipgan.tracking.registry import RegistrationReport
from clipgan.tracking.run_contexts import open_training_run
from clipgan.tracking.versions import list_versions
from tests.metric_values import value_of
from tests.mlflow_stores import register_values, save_tiny_bundle
from tests.params import params_with
from tests.unit.tracking.tiny_sampler import LOADER

NAME = "clipgan-emoji"
CONFIG = params_with(
    {"register.gate_metric": "fd", "register.first_version": "always"}
).register_model


def register(
    tracking_uri: str,
    bundle: Path,
    fd: float,
    *,
    seed: int = 0,
    run_id: str | None = None,
    others: Mapping[str, float] | None = None,
) -> RegistrationReport:
    values = {"fd": fd, **(others or {})}
    trained = {name: value_of(name, value, seed=seed) for name, value in values.items()}
    return register_values(
        CONFIG, GeneratorPackage(bundle, LOADER), tracking_uri, trained, run_id=run_id
    )


def aliases(tracking_uri: str) -> dict[str, int]:
    rows = list_versions(NAME, tracking_uri=tracking_uri)
    return {alias: row.version for row in rows for alias in row.aliases}


def test_the_life_of_a_model(tracking_uri: str, tmp_path: Path) -> None:
    bundles = [save_tiny_bundle(tmp_path / str(seed), seed) for seed in range(4)]

    first = register(tracking_uri, bundles[0], 2.0)
    assert (first.version, first.created, first.decision.promoted) == (1, True, True)
    assert aliases(tracking_uri) == {"challenger": 1, "champion": 1}

    worse = register(tracking_uri, bundles[1], 3.0)
    assert (worse.version, worse.decision.promoted) == (2, False)
    assert "worse by 1" in worse.decision.reason
    assert aliases(tracking_uri) == {"challenger": 2, "champion": 1}

    otherwise = register(tracking_uri, bundles[2], 0.1, seed=7)
    assert not otherwise.decision.promoted
    assert "seed: 7 against 0" in otherwise.decision.reason
    assert "not in this test" in otherwise.decision.reason
    assert aliases(tracking_uri) == {"challenger": 3, "champion": 1}

    better = register(tracking_uri, bundles[3], 1.0)
    assert better.decision.promoted
    assert better.decision.champion_version == 1
    assert "fd 1 against 2 of champion version 1" in better.decision.reason
    assert aliases(tracking_uri) == {"challenger": 4, "champion": 4}

    rows = list_versions(NAME, tracking_uri=tracking_uri)
    assert [row.version for row in rows] == [4, 3, 2, 1]
    assert [row.metrics["fd"] for row in rows] == [1.0, 0.1, 3.0, 2.0]
    assert "better by 1" in rows[0].reason
    assert "no champion to beat" in rows[3].reason


def test_the_same_generator_is_one_version(tracking_uri: str, tmp_path: Path) -> None:
    first = register(tracking_uri, save_tiny_bundle(tmp_path / "a"), 2.0, others={"kid": 4.0})
    again = register(tracking_uri, save_tiny_bundle(tmp_path / "b"), 1.5)
    assert (again.version, again.created, again.run_id) == (1, False, first.run_id)
    assert not again.decision.promoted
    assert "already" in again.decision.reason
    (row,) = list_versions(NAME, tracking_uri=tracking_uri)
    assert row.metrics == {"fd": 1.5}
    assert "no champion to beat" in row.reason
    assert len(open_client(tracking_uri).search_logged_models(["1"])) == 1


def test_a_rejected_generator_that_is_evaluated_anew_gets_another_chance(
    tracking_uri: str, tmp_path: Path
) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0", 0), 2.0)
    bundle = save_tiny_bundle(tmp_path / "1", 1)
    assert not register(tracking_uri, bundle, 2.5).decision.promoted
    report = register(tracking_uri, bundle, 1.5)
    assert (report.version, report.created, report.decision.promoted) == (2, False, True)


def test_the_model_belongs_to_the_training_run(tracking_uri: str, tmp_path: Path) -> None:
    with open_training_run(
        tracking_uri=tracking_uri,
        experiment="test",
        folder=tmp_path / "work",
        fingerprint="f",
        run_name="tiny",
        sample_system=False,
    ) as logger:
        pass
    report = register(tracking_uri, save_tiny_bundle(tmp_path / "a"), 1.0, run_id=logger.run_id)
    assert report.run_id == logger.run_id
    client = open_client(tracking_uri)
    version = client.get_model_version_by_alias(NAME, "champion")
    model_id = version.source.removeprefix("models:/")
    assert client.get_logged_model(model_id).source_run_id == logger.run_id
    assert str(client.get_logged_model(model_id).status) == "READY"
    (output,) = client.get_run(logger.run_id).outputs.model_outputs
    assert output.model_id == model_id


def test_a_failed_registration_leaves_no_version(tracking_uri: str, tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tmp_path / "a")
    with pytest.raises(RegistryError, match=r"set register\.gate_metric to one of: kid"):
        register_values(
            CONFIG,
            GeneratorPackage(bundle, LOADER),
            tracking_uri,
            {"kid": value_of("kid", 1.0)},
        )
    assert list_versions(NAME, tracking_uri=tracking_uri) == []


def test_promotion_by_hand_keeps_its_reason(tracking_uri: str, tmp_path: Path) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0", 0), 1.0)
    register(tracking_uri, save_tiny_bundle(tmp_path / "1", 1), 2.0)
    decision = promote_version(NAME, 2, reason="prettier", tracking_uri=tracking_uri)
    assert (decision.promoted, decision.champion_version) == (True, 1)
    assert aliases(tracking_uri) == {"challenger": 2, "champion": 2}
    assert list_versions(NAME, tracking_uri=tracking_uri)[0].reason == "by hand: prettier"
    assert not promote_version(NAME, 2, reason="again", tracking_uri=tracking_uri).promoted


@pytest.mark.parametrize(("name", "version", "known"), [(NAME, 7, "versions: 1"), ("x", 1, "none")])
def test_promoting_what_is_not_there_names_what_is(
    tracking_uri: str, tmp_path: Path, name: str, version: int, known: str
) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0"), 1.0)
    with pytest.raises(RegistryError, match=f"has no version {version}.*{known}"):
        promote_version(name, version, reason="", tracking_uri=tracking_uri)


def test_protocols_are_kept_with_the_version(tracking_uri: str, tmp_path: Path) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0"), 1.0, seed=5)
    tags = open_client(tracking_uri).get_model_version(NAME, "1").tags
    assert parse_value(json.loads(tags["metric.fd"]), "tag") == value_of("fd", 1.0, seed=5)


@pytest.mark.parametrize("text", ["0.9", "very good", '{"value": "high"}', "null", ""])
def test_tags_that_somebody_else_made_are_no_values(
    tracking_uri: str, tmp_path: Path, text: str
) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0", 0), 2.0)
    client = open_client(tracking_uri)
    for name in ("human", "fd"):
        client.set_model_version_tag(NAME, "1", f"metric.{name}", text)
    (row,) = list_versions(NAME, tracking_uri=tracking_uri)
    assert row.metrics == {}
    report = register(tracking_uri, save_tiny_bundle(tmp_path / "1", 1), 1.0)
    assert "version 1 has no value of fd" in report.decision.reason
    register(tracking_uri, save_tiny_bundle(tmp_path / "again", 0), 2.0)
    tags = client.get_model_version(NAME, "1").tags
    assert tags["metric.human"] == text, "it is not ours to remove"
    assert json.loads(tags["metric.fd"])["value"] == 2.0
    assert promote_version(NAME, 2, reason="test", tracking_uri=tracking_uri).promoted


def test_more_than_a_thousand_versions_are_listed(tracking_uri: str, tmp_path: Path) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0"), 2.0)
    database = sqlite_path(tracking_uri)
    assert database is not None
    with sqlite3.connect(database) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(model_versions)")]
        others = ", ".join(name for name in columns if name != "version")
        connection.executemany(
            f"INSERT INTO model_versions (version, {others}) "
            f"SELECT ?, {others} FROM model_versions WHERE version = 1",
            [(version,) for version in range(2, 1203)],
        )
    rows = list_versions(NAME, tracking_uri=tracking_uri)
    assert [row.version for row in rows] == list(range(1202, 0, -1))
    assert promote_version(NAME, 7, reason="an old one", tracking_uri=tracking_uri).promoted
