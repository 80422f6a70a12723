"""The register stage on the files that train and evaluate leave behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from clipgan.artifacts import write_json
from clipgan.errors import CheckpointError, ClipError, EvaluationError, RegistryError
from clipgan.evaluation.intervals import Estimate
from clipgan.evaluation.protocol import Protocol, build_value
from clipgan.evaluation.report import Evaluation, save_evaluation
from clipgan.stages.register import find_clip_weights, register
from clipgan.tracking.registry import RegistrationReport, list_versions
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


def prepare(root: Path, value: float, *, seed: int = 0, **protocol: object) -> Path:
    """The folders of train and evaluate."""
    save_tiny_bundle(root / "training", seed)
    write_json(root / "training" / "mlflow.json", {"run_id": None})
    # Shared captions: the subsets of two models go up and down together.
    estimate = Estimate(value, (value - 0.5, value, value + 0.5))
    values = {METRIC: build_value(estimate, make_protocol(**protocol), 0.95)}
    save_evaluation(root / "evaluation", Evaluation({"trained": values}, {"fid": "no weights"}))
    return root


def run(root: Path, uri: str, metric: str = METRIC) -> RegistrationReport:
    return register(
        CONFIG.model_copy(update={"gate_metric": metric}),
        training=root / "training",
        evaluation=root / "evaluation",
        tracking_uri=uri,
        experiment="test",
        clip_weights="built-in",
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
    rows = list_versions(CONFIG.model_name, tracking_uri=tracking_uri)
    assert [row.aliases for row in rows] == [("challenger",), (), ("champion",), ()]


def test_a_champion_of_an_older_protocol_is_not_compared(
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    from clipgan.tracking.environment import open_client

    run(prepare(tmp_path / "1", 3.0, seed=1), tracking_uri)
    old = json.dumps({"value": 3.0, "protocol": {"metric": METRIC}})
    client = open_client(tracking_uri)
    client.set_model_version_tag(CONFIG.model_name, "1", f"metric.{METRIC}", old)
    decision = run(prepare(tmp_path / "2", 1.0, seed=2), tracking_uri).decision
    assert not decision.promoted
    assert "another program version" in decision.reason


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
    assert find_clip_weights(training, "built-in") is None
    with pytest.raises(ClipError, match="neither a file nor a pretrained tag of tiny"):
        find_clip_weights(training, "no-such-tag")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(ClipError, match="'tiny' is unknown"):
        find_clip_weights(training, str(weights))
