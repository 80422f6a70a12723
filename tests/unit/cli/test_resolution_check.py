"""Sizes of images and of initial weights, compared before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipgan.config import load_params
from clipgan.errors import ConfigError
from clipgan.stages.catalog import run_stage
from clipgan.stages.resolution_check import check_resolutions
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.workspace import Workspace
from tests.metric_values import value_of
from tests.mlflow_stores import register_values, save_tiny_bundle
from tests.params import params_with
from tests.unit.cli.commands import run_clipgan
from tests.unit.tracking.tiny_sampler import LOADER


def check(root: Path, **changes: Any) -> None:
    settings = {"ingest.resolution_px": 256} | {f"train.{k}": v for k, v in changes.items()}
    check_resolutions(params_with(settings), root)


@pytest.mark.parametrize("side", [64, 128, 256])
def test_lafite_grows_from_a_smaller_start(side: int, tmp_path: Path) -> None:
    check(tmp_path, resolution_px=side)


@pytest.mark.parametrize("initial", ["none", "models:/clipgan@champion", "data/generator"])
@pytest.mark.usefixtures("tracking_uri")
def test_what_cannot_be_looked_up_is_left_to_the_train_stage(initial: str, tmp_path: Path) -> None:
    check(tmp_path, initial_weights=initial, resolution_px=32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"resolution_px": 32},
            "train.initial_weights = built-in: a generator of 64 px, and train.resolution_px = 32: "
            "lafite takes no start for larger images; set train.resolution_px to 64, or "
            "train.initial_weights to none",
        ),
        (
            {"family": "galip", "resolution_px": 128},
            "train.initial_weights = built-in: a generator of 64 px, and train.resolution_px = "
            "128: galip takes no start of another size; set train.resolution_px to 64, or "
            "train.initial_weights to none",
        ),
        (
            {"resolution_px": 128, "lafite.freeze_discriminator_blocks": 2},
            "train.initial_weights = built-in: a generator of 64 px grows to train.resolution_px = "
            "128 with a fresh discriminator, and train.lafite.freeze_discriminator_blocks = 2 "
            "would freeze random weights: set it to 0",
        ),
        (
            {"resolution_px": 512},
            "train.resolution_px = 512, but ingest.resolution_px = 256 stores smaller images: set "
            "ingest.resolution_px to 512, or train.resolution_px to 256",
        ),
    ],
)
def test_one_line_names_both_sizes_and_the_fix(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, **changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "tree"),
    [
        ("bundle.json", {"resolution_px": 128}),
        ("checkpoint.json", {"subject": {"resolution_px": 128}}),
    ],
)
def test_folders_of_the_project_are_looked_into(
    name: str, tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / name).write_text(json.dumps(tree))
    check(tmp_path, initial_weights="start", resolution_px=128)
    with pytest.raises(ConfigError, match=r"= start: a generator of 128 px.* = 64: lafite"):
        check(tmp_path, initial_weights="start", resolution_px=64)
    (tmp_path / "start" / name).write_text("{")
    check(tmp_path, initial_weights="start", resolution_px=64)  # damage is train's to report


@pytest.mark.parametrize("address", ["models:/tiny/1", "models:/tiny@challenger"])
def test_a_registered_start_is_looked_up_before_any_stage_starts(
    address: str, project: Workspace, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    package = GeneratorPackage(save_tiny_bundle(project.root / "bundle"), LOADER)
    config = params_with({"register.model_name": "tiny", "register.gate_metric": "fd"})
    register_values(config.register_model, package, tracking_uri, {"fd": value_of("fd", 1.0)})
    text = project.params_file.read_text()
    project.params_file.write_text(
        text.replace("initial_weights: built-in", f"initial_weights: {address}").replace(
            "family: lafite", "family: galip"
        )
    )
    done = run_clipgan("run", folder=project.root)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: train.initial_weights = {address}: a generator of 8 px, and "
        "train.resolution_px = 64: galip takes no start of another size; set train.resolution_px "
        "to 8, or train.initial_weights to none\n"
    )
    assert not (project.root / "data").exists(), "a stage has started"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    check_resolutions(load_params(project.params_file), project.root)  # asked again later


def test_a_start_that_a_recipe_is_about_to_replace_stops_no_stage_before_training(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clipgan pretrain-generator` brings images and features up to date through DVC."""
    monkeypatch.chdir(project.root)
    project.generator.mkdir(parents=True)
    (project.generator / "bundle.json").write_text(json.dumps({"resolution_px": 128}))
    text = project.params_file.read_text()
    named = text.replace("initial_weights: built-in", "initial_weights: data/generator")
    project.params_file.write_text(named)
    run_stage("settings", project)
    with pytest.raises(ConfigError, match="= data/generator: a generator of 128 px"):
        run_stage("train", project)
    larger = named.replace("  resolution_px: 64", "  resolution_px: 32", 1)
    project.params_file.write_text(larger)
    with pytest.raises(ConfigError, match=r"ingest.resolution_px = 32 stores smaller"):
        run_stage("settings", project)
