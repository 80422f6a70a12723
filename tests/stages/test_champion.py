"""A folder of images grows: the champion is measured again on today's data, then compared."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from clipgan.artifacts import write_json
from clipgan.errors import EvaluationError
from clipgan.evaluation.study.protocols import EvaluationProtocol
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.metrics.evaluations import load_evaluation
from clipgan.models.bundle import BundleInfo, save_bundle
from clipgan.stages.champion import measure_version
from clipgan.stages.measurements import Measurements
from clipgan.stages.register import register_generator
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.tracking.registry import RegistrationReport
from clipgan.tracking.versions import list_versions
from clipgan.workspace import Workspace
from tests.stages.test_evaluate import CHANGES, build_generator, run, save_training
from tests.stages.tiny_training import SIDE_PX, TinyClip, build_world, tiny_params

FD = "fd_efficientnet_lite0"
PARAMS = tiny_params(
    CHANGES
    | {
        "register.model_name": "tiny",
        "register.gate_metric": FD,
        "register.first_version": "always",
    }
)


@pytest.fixture(autouse=True)
def own_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models name a CLIP that open_clip does not know."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(
        "clipgan.stages.model_sources.load_matching_clip", lambda *_, **__: TinyClip()
    )


@pytest.fixture
def workspace(tmp_path: Path, migrated_database: Path) -> Workspace:
    """A project whose first generator is champion."""
    project = Workspace(tmp_path / "project")
    project.mlruns.mkdir(parents=True)
    shutil.copyfile(migrated_database, project.mlruns / "mlflow.db")
    build_world(project.images.parent)
    save_training(project.images.parent)
    assert evaluate_and_register(project).decision.promoted
    return project


def evaluate_and_register(workspace: Workspace) -> RegistrationReport:
    write_json(workspace.training / "mlflow.json", {"run_id": None})
    run(workspace.images.parent)
    return register_generator(PARAMS, workspace, "state")


def grow(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """More images, and a generator that was trained on them."""
    for folder in (workspace.images, workspace.features, workspace.training / "initial"):
        shutil.rmtree(folder, ignore_errors=folder.name == "initial")
    monkeypatch.setattr("tests.stages.tiny_training.NUM_IMAGES", 30)
    build_world(workspace.images.parent, captioned=30)
    info = BundleInfo("lafite", TinyClip().fingerprint, SIDE_PX, 10)
    save_bundle(workspace.training, build_generator(PARAMS, 7), None, info, dtype="fp32")


def test_a_grown_folder_can_be_promoted(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (before,) = list_versions("tiny", tracking_uri=resolve_tracking_uri(workspace.root, {}))
    grow(workspace, monkeypatch)
    report = evaluate_and_register(workspace)
    assert (report.version, report.decision.champion_version) == (2, 1)
    assert "champion version 1 is measured again: " in capsys.readouterr().out
    assert "not evaluated alike" not in report.decision.reason
    assert "of champion version 1 (lower is better)" in report.decision.reason
    rows = list_versions("tiny", tracking_uri=resolve_tracking_uri(workspace.root, {}))
    champion = rows[1].metrics[FD]
    assert champion != before.metrics[FD]
    # The same as what the evaluate stage finds for the champion on today's data.
    save_training(workspace.images.parent)
    run(workspace.images.parent, output="again")
    again = load_evaluation(workspace.images.parent / "again").values["trained"][FD].value
    assert champion == pytest.approx(again, rel=1e-5)
    # Kept with the version: nothing is measured twice.
    grow(workspace, monkeypatch)
    evaluate_and_register(workspace)
    assert "measured again" not in capsys.readouterr().out


def test_a_champion_whose_files_are_gone_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(workspace.mlruns / "artifacts")
    grow(workspace, monkeypatch)
    decision = evaluate_and_register(workspace).decision
    assert not decision.promoted
    assert "measuring the champion again failed: the files of models:/tiny/1" in decision.reason
    assert "`clipgan promote 2` makes it champion by hand" in decision.reason


def test_a_champion_of_another_size_is_not_measured(workspace: Workspace) -> None:
    info = BundleInfo("lafite", TinyClip().fingerprint, 2 * SIDE_PX, 10)
    larger = LafiteGenerator(
        **{**build_generator(PARAMS, 7).architecture, "resolution_px": 2 * SIDE_PX}
    )
    save_bundle(workspace.training, larger, None, info, dtype="fp32")
    with pytest.raises(EvaluationError, match=f"of {SIDE_PX} px, the new generator {2 * SIDE_PX}"):
        measure_version(PARAMS, workspace, 1, "fd-offline")


def test_a_champion_is_measured_with_the_threads_of_params(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    params = PARAMS.model_copy(update={"threads": before + 1})
    seen, measure = [], Measurements.measure

    def look(self: Measurements, protocol: EvaluationProtocol) -> None:
        seen.append(torch.get_num_threads())
        measure(self, protocol)

    monkeypatch.setattr(Measurements, "measure", look)
    assert FD in measure_version(params, workspace, 1, "fd-offline")
    assert (seen, torch.get_num_threads()) == ([before + 1], before)
