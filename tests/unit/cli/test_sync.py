"""``clipgan sync``: what was logged while MLflow did not answer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clipgan.cli.process_environment import process_environment
from clipgan.stages.runs import is_anything_waiting, name_training
from clipgan.tracking.mlflow_store import open_client
from clipgan.tracking.spool import RunHeader, Spool
from clipgan.workspace import Workspace
from tests.params import params_with
from tests.unit.cli.commands import ROOT, run_clipgan

STAGES_OF_DVC = {"scan", "settings", "ingest", "features", "train", "evaluate", "report"}
NOBODY = "http://127.0.0.1:9"


def test_what_waits_is_sent_and_the_rest_of_it_removed(
    project: Workspace, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    spool = Spool(project.work("train") / "a", RunHeader("key", "test", "tiny training", 0))
    spool.append("metrics", step=16, values={"loss": 1.0, "penalty": 2.0})
    spool.append("status", status="FINISHED")
    assert is_anything_waiting(project)
    away = run_clipgan("sync", folder=project.root)
    assert away.returncode == 2
    assert away.stderr.startswith(f"error: the MLflow store {NOBODY} cannot be used")
    assert is_anything_waiting(project)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    done = run_clipgan("sync", folder=project.root)
    assert done.returncode == 0, done.stderr
    assert not is_anything_waiting(project)
    assert not spool.folder.exists()
    client = open_client(tracking_uri)
    experiment = client.get_experiment_by_name("test").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.run_name, run.info.status) == ("tiny training", "FINISHED")
    assert done.stdout == f"MLflow run {run.info.run_id}: sent 2 points and 0 files\n"
    assert run.data.metrics == {"loss": 1.0, "penalty": 2.0}
    assert run_clipgan("sync", folder=project.root).stdout == "MLflow has everything\n"


def test_status_says_in_one_line_that_the_tracking_server_is_away(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    command = [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"]
    subprocess.run(command, cwd=project.root, env=process_environment(ROOT), check=True)
    done = run_clipgan("status", folder=project.root)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == STAGES_OF_DVC
    away = f"the MLflow store {NOBODY} cannot be used: the tracking server does not answer"
    assert lines[-1] == f"model      unknown: {away}"

    # A start from the registry is not known either.
    text = project.params_file.read_text()
    named = text.replace("initial_weights: built-in", "initial_weights: models:/tiny@champion")
    project.params_file.write_text(named)
    done = run_clipgan("status", folder=project.root)
    assert (done.returncode, done.stderr) == (0, "")
    first, *others = done.stdout.splitlines()
    assert first == f"compared with earlier settings, those of now are unknown: {away}"
    assert others[-1] == f"model      unknown: {away}"


def test_a_run_is_named_by_what_tells_trainings_apart() -> None:
    config = params_with({"train.family": "lafite", "train.seed": 3, "train.total_images": 4000})
    name = name_training(config.train, "0123456789abcdef")
    assert name == f"lafite {config.train.resolution_px} px, 4,000 images, seed 3, 01234567"
