"""A tiny ``clipgan run`` on the device: every stage, from images to a registered model."""

# ruff: noqa: E402 - what a bare machine lacks is asked for first

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

for package in ("dvc", "mlflow", "prefect", "pyarrow", "torch_fidelity", "simplejpeg", "typer"):
    pytest.importorskip(package, reason=f"the pipeline needs {package}")

from ruamel.yaml import YAML

from tests.params import tree_with
from tests.pipelines.test_dvc_project import TINY, copy_project

DEVICES = ("features.device", "train.device", "evaluate.device")


@pytest.mark.timeout(600)
def test_a_tiny_run(device: torch.device, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    changes = TINY | dict.fromkeys(DEVICES, device.type)
    with (project.root / "params.yaml").open("w") as handle:
        YAML().dump(tree_with(changes), handle)
    project.git("commit", "--quiet", "--all", "-m", "device")
    project.run("clipgan", "run")
    report = json.loads((project.root / "data" / "training" / "training.json").read_text())
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    assert report["device"] == name
    assert report["images_seen"] == 64
    assert any((project.root / "data" / "evaluation" / "metrics").glob("*.json"))
