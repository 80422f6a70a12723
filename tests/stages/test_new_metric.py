"""A metric is one file: written here, and seen wherever numbers are."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipgan.artifacts import write_json
from clipgan.evaluation.metrics.metric import METRICS
from clipgan.metrics.evaluations import load_evaluation
from clipgan.stages.register import register
from tests.params import params_with
from tests.stages.test_evaluate import RecordingLogger, run, save_training
from tests.stages.tiny_training import build_world

SOURCE = '''
"""How bright images are."""

from clipgan.evaluation.metrics.inputs import ImageInputs
from clipgan.evaluation.metrics.metric import metric
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace


def look(captions, device):
    def encode(images):
        return images.float().mean(dim=(1, 2, 3))[:, None], None

    return FeatureSpace("pixels", "", "pixels", "", "none", encode)


@metric(
    "brightness", better="lower", value_range=(0.0, 255.0), needs=ImageInputs, find_network=look
)
def measure_brightness(inputs: ImageInputs):
    return inputs.grouping.average(inputs.features[:, 0])
'''


@pytest.fixture
def new_metric(tmp_path: Path) -> Iterator[None]:
    file = tmp_path / "brightness.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("brightness", file)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    del METRICS["brightness"]


def test_one_file_is_seen_in_tables_files_mlflow_and_at_the_gate(
    new_metric: None, tmp_path: Path, tracking_uri: str
) -> None:
    build_world(tmp_path)
    save_training(tmp_path)
    logger = RecordingLogger()
    report = run(tmp_path, logger=logger)
    value = load_evaluation(tmp_path / "evaluation").values["trained"]["brightness"]
    assert 0.0 < value.value < 255.0
    assert value.interval is not None
    assert (value.better, value.protocol.extractor) == ("lower", "pixels")
    # `dvc metrics show` reads these files.
    numbers = json.loads((tmp_path / "evaluation" / "metrics" / "brightness.json").read_text())
    assert numbers == {name: report.values[name]["brightness"] for name in ("trained", "initial")}
    for name in ("report.md", "report.html"):
        assert "brightness" in (tmp_path / "evaluation-report" / name).read_text()
    assert logger.metrics[report.images_seen]["evaluation/brightness"] == value.value
    write_json(tmp_path / "training" / "mlflow.json", {"run_id": None})
    registered = register(
        params_with({"register.gate_metric": "brightness"}).register_model,
        training=tmp_path / "training",
        evaluation=tmp_path / "evaluation",
        tracking_uri=tracking_uri,
        clip_weights="built-in",
        state="state",
        measure=lambda version, like: "not in this test",
    )
    assert ": brightness " in registered.decision.reason
    assert "of the weights it started from (lower is better)" in registered.decision.reason
