"""The register stage on the files that train and evaluate leave behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from clipgan.artifacts import write_json
from clipgan.errors import CheckpointError, ClipError, EvaluationError, RegistryError
from clipgan.metrics.evaluations import Evaluation, save_evaluation
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import Better, MetricValue, Protocol, build_value
from clipgan.stages.register import find_clip_files, register
from clipgan.tracking.gate import MeasureVersion
from clipgan.tracking.registry import RegistrationReport
from clipgan.tracking.versions import list_versions
from tests.mlflow_stores import save_tiny_bundle
from tests.params import params_with

CONFIG = params_with().register_model
METRIC = CONFIG.gate_metric


def make_protocol(**changes: object) -> Protocol:
    fields: dict[str, object] = {
        "metric": METRIC,
        "extractor": "efficientnet_lite0",
        "extractor_sha256": "a" * 64,
        "independent": True,
        "reference_split": "train",
        "reference": "all images",
        "reference_count": 100,
        "reference_fingerprint": "b" * 64,
        "generated_count": 100,
        "captions": "one a concept",
        "seed": 0,
        "resize": "bicubic",
        "truncation": 1.0,
        "name": "fd-offline",
    }
    return Protocol.model_validate(fields | changes)


def find_better(metric: str) -> Better:
    return "higher" if metric.startswith("precision") else "lower"


def make_value(value: float, **protocol: object) -> MetricValue:
    # Shared captions: the subsets of two models go up and down together.
    estimate = Estimate(value, (value - 0.5, value, value + 0.5))
    made = make_protocol(**protocol)
    return build_value(estimate, made, 0.95, better=find_better(made.metric))


def prepare(
    root: Path, value: float, *, seed: int = 0, start: float | None = None, **protocol: object
) -> Path:
    """The folders of train and evaluate."""
    save_tiny_bundle(root / "training", seed)
    write_json(root / "training" / "mlflow.json", {"run_id": None})
    metric = str(protocol.get("metric", METRIC))
    sections = {"trained": {metric: make_value(value, **protocol)}}
    if start is not None:
        sections["initial"] = {metric: make_value(start, **protocol)}
    save_evaluation(root / "evaluation", Evaluation(sections, {"fid": "no weights"}))
    return root


def measure_nothing(version: int, like: MetricValue) -> str:
    return f"no files of version {version} here"


def run(
    root: Path,
    uri: str,
    *,
    metric: str = METRIC,
    first_version: str = "always",
    measure: MeasureVersion = measure_nothing,
) -> RegistrationReport:
    return register(
        CONFIG.model_copy(update={"gate_metric": metric, "first_version": first_version}),
        training=root / "training",
        evaluation=root / "evaluation",
        tracking_uri=uri,
        clip_weights="built-in",
        state="state",
        measure=measure,
    )


def test_first_better_worse_and_otherwise_measured(tracking_uri: str, tmp_path: Path) -> None:
    first = run(prepare(tmp_path / "1", 3.0, seed=1), tracking_uri)
    assert (first.version, first.decision.promoted) == (1, True)
    assert run(tmp_path / "1", tracking_uri) == replace(
        first, created=False, decision=run(tmp_path / "1", tracking_uri).decision
    )
    assert run(prepare(tmp_path / "2", 2.0, seed=2), tracking_uri).decision.promoted
    worse = run(prepare(tmp_path / "3", 2.5, seed=3), tracking_uri).decision
    assert (worse.promoted, worse.champion_version) == (False, 2)
    otherwise = prepare(tmp_path / "4", 0.1, seed=4, generated_count=50)
    refused = run(otherwise, tracking_uri).decision
    assert not refused.promoted
    assert "generated_count: 50 against 100" in refused.reason
    assert "measuring the champion again failed: no files of version 2 here" in refused.reason
    rows = list_versions(CONFIG.model_name, tracking_uri=tracking_uri)
    assert [row.aliases for row in rows] == [("challenger",), (), ("champion",), ()]


@pytest.mark.parametrize(
    ("metric", "values", "promoted"),
    [
        ("kid", (2.0, 1.0), True),
        ("kid", (1.0, 2.0), False),
        ("precision_efficientnet_lite0", (1.0, 2.0), True),
        ("precision_efficientnet_lite0", (2.0, 1.0), False),
    ],
)
def test_the_metric_knows_which_values_are_better(
    tracking_uri: str, tmp_path: Path, metric: str, values: tuple[float, float], promoted: bool
) -> None:
    run(prepare(tmp_path / "1", values[0], seed=1, metric=metric), tracking_uri, metric=metric)
    root = prepare(tmp_path / "2", values[1], seed=2, metric=metric)
    decision = run(root, tracking_uri, metric=metric).decision
    assert decision.promoted is promoted
    word = "lower" if metric == "kid" else "higher"
    assert f"({word} is better)" in decision.reason


@pytest.mark.parametrize(("start", "promoted"), [(5.0, True), (3.0, False), (1.0, False)])
def test_a_first_version_must_beat_the_weights_it_started_from(
    tracking_uri: str, tmp_path: Path, start: float, promoted: bool
) -> None:
    root = prepare(tmp_path, 3.0, start=start)
    decision = run(root, tracking_uri, first_version="beat_start").decision
    assert decision.promoted is promoted
    assert "of the weights it started from" in decision.reason
    (row,) = list_versions(CONFIG.model_name, tracking_uri=tracking_uri)
    assert ("champion" in row.aliases) is promoted
    assert "challenger" in row.aliases


def test_a_champion_of_other_data_is_measured_again_once(tracking_uri: str, tmp_path: Path) -> None:
    asked = []

    def measure(version: int, like: MetricValue) -> Mapping[str, MetricValue]:
        asked.append(version)
        assert like.protocol.reference_fingerprint == "c" * 64
        return {METRIC: make_value(3.5, reference_fingerprint="c" * 64)}

    run(prepare(tmp_path / "1", 2.0, seed=1), tracking_uri)
    grown = {"reference_fingerprint": "c" * 64}
    worse = run(prepare(tmp_path / "2", 4.0, seed=2, **grown), tracking_uri, measure=measure)
    assert not worse.decision.promoted
    assert "worse by 0.5" in worse.decision.reason
    better = run(prepare(tmp_path / "3", 3.0, seed=3, **grown), tracking_uri, measure=measure)
    assert better.decision.promoted
    assert better.decision.champion_version == 1
    assert "3 against 3.5 of champion version 1" in better.decision.reason
    assert asked == [1], "today's value is kept with the version"


def test_a_champion_of_an_older_protocol_is_not_compared(
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    from clipgan.tracking.mlflow_store import open_client

    run(prepare(tmp_path / "1", 3.0, seed=1), tracking_uri)
    old = json.dumps({"value": 3.0, "protocol": {"metric": METRIC}})
    client = open_client(tracking_uri)
    client.set_model_version_tag(CONFIG.model_name, "1", f"metric.{METRIC}", old)
    decision = run(prepare(tmp_path / "2", 1.0, seed=2), tracking_uri).decision
    assert not decision.promoted
    assert "no files of version 1 here" in decision.reason


def test_a_metric_that_was_skipped_says_why(tracking_uri: str, tmp_path: Path) -> None:
    root = prepare(tmp_path, 1.0)
    with pytest.raises(RegistryError, match=r"'fid' was not computed \(no weights\)"):
        run(root, tracking_uri, metric="fid")


def test_missing_and_damaged_inputs_are_named(tracking_uri: str, tmp_path: Path) -> None:
    root = prepare(tmp_path, 1.0)
    (root / "training" / "mlflow.json").unlink()
    with pytest.raises(RegistryError, match=r"mlflow\.json: no such file"):
        run(root, tracking_uri)
    (root / "evaluation" / "evaluation.json").write_text('{"trained": ')
    with pytest.raises(EvaluationError, match=r"evaluation\.json: damaged"):
        run(root, tracking_uri)
    shutil.rmtree(root / "evaluation")
    with pytest.raises(EvaluationError, match="no such file"):
        run(root, tracking_uri)
    root = prepare(tmp_path / "again", 1.0)
    (root / "training" / "generator.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"generator\.safetensors"):
        run(root, tracking_uri)
    assert list_versions(CONFIG.model_name, tracking_uri=tracking_uri) == []


def test_weights_of_a_clip_that_is_not_built_in_are_found_and_checked(tmp_path: Path) -> None:
    training = prepare(tmp_path, 1.0) / "training"
    assert find_clip_files(training, "built-in") is None
    with pytest.raises(ClipError, match="neither a file nor a pretrained tag of tiny"):
        find_clip_files(training, "no-such-tag")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(ClipError, match="'tiny' is unknown"):
        find_clip_files(training, str(weights))
