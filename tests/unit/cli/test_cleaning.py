"""`clipgan clean`: lists what may go, keeps what a run would go on from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipgan.cli import cleaning
from clipgan.cli.cleaning import find_leftovers, find_temporary_folders
from clipgan.resume_state import hash_like_dvc, mark_finished
from clipgan.tracking.mlflow_store import ensure_experiment, open_client, resolve_tracking_uri
from clipgan.tracking.pending_models import list_pending_models
from clipgan.workspace import Workspace
from tests.unit.cli.commands import run_clipgan


@pytest.fixture(autouse=True)
def own_temporary_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Processes that other tests kill leave folders in the common one, which `clean` would list."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def make_state(project: Workspace, stage: str, name: str, age_seconds: float) -> Path:
    """A state of ``stage`` with one checkpoint, last written ``age_seconds`` ago."""
    folder = project.work(stage) / (name * 16)
    checkpoint = folder / "checkpoints" / "checkpoint-000000001024"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.json").write_text('{"images_seen": 1024}')
    (checkpoint / "weights").write_bytes(bytes(5000))
    then = time.time() - age_seconds
    for path in (folder / "checkpoints", folder):
        os.utime(path, (then, then))
    return folder


def list_paths(project: Workspace) -> list[Path]:
    return [leftover.path for leftover in find_leftovers(project)]


def test_the_newest_state_stays_and_older_ones_may_go(project: Workspace) -> None:
    old, older = (make_state(project, "train", name, age) for name, age in (("a", 50), ("b", 99)))
    newest = make_state(project, "train", "c", 10)
    lone = make_state(project, "features", "d", 10)
    assert sorted(list_paths(project)) == sorted([old, older])
    # A result that is newer than all of them leaves nothing to go on from.
    for output in (project.training, project.features):
        output.mkdir()
    assert sorted(list_paths(project)) == sorted([old, older, newest, lone])


def test_a_finished_training_that_dvc_has_not_recorded_stays(project: Workspace) -> None:
    state = make_state(project, "train", "a", 50)
    project.training.mkdir()
    (project.training / "bundle.json").write_text("{}")
    time.sleep(0.02)
    mark_finished(state, project.training)
    assert list_paths(project) == []
    assert "nothing to clean" in run_clipgan("clean", "--yes", folder=project.root).stdout
    assert state.exists()
    project.dvc_lock.write_text(hash_like_dvc(project.training))
    run_clipgan("clean", "--yes", folder=project.root)
    assert not state.exists()


def test_what_was_logged_and_not_sent_stays(project: Workspace) -> None:
    old = make_state(project, "train", "a", 50)
    make_state(project, "train", "b", 10)
    (old / "spool").mkdir()
    (old / "spool" / "records.jsonl").write_text("{}\n")
    (old / "mlflow.json").write_text("{}")
    os.utime(old, (1, 1))
    run_clipgan("clean", "--yes", folder=project.root)
    assert sorted(path.name for path in old.iterdir()) == ["mlflow.json", "spool"]
    assert list_paths(project) == []


def test_what_was_cut_short_may_go(project: Workspace) -> None:
    data = project.root / "data"
    names = (".training.building", ".features.old", ".work/.x.removed", ".work/ingest/.y.partial")
    for name in names:
        (data / name).mkdir(parents=True)
    (data / ".gitignore").touch()
    (data / "images").mkdir()
    assert sorted(list_paths(project)) == sorted(data / name for name in names)


def test_what_a_living_process_writes_into_a_cache_stays(project: Workspace) -> None:
    cache = project.work("evaluate")
    cache.mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (os.getpid(), dead.pid):
        (cache / f".features.safetensors.{pid}.partial").touch()
    assert list_paths(project) == [cache / f".features.safetensors.{dead.pid}.partial"]


def test_every_temporary_folder_of_this_program_is_known(tmp_path: Path) -> None:
    source = Path(cleaning.__file__).parents[1]
    texts = [path.read_text() for path in source.rglob("*.py")]
    kinds = {kind for text in texts for kind in re.findall(r'prefix=f?"(clipgan-.*?)"', text)}
    assert len(kinds) > 3
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    long_ago = time.time() - 2 * 86_400
    for kind in kinds:
        folder = tmp_path / f"{kind.replace('{os.getpid()}', str(dead.pid))}abc"
        folder.mkdir()
        os.utime(folder, (long_ago, long_ago))
    assert len(list(find_temporary_folders(tmp_path))) == len(kinds)


def test_without_a_yes_nothing_goes(project: Workspace) -> None:
    old = make_state(project, "train", "a", 50)
    newest = make_state(project, "train", "b", 10)
    for options in ((), ("--dry-run",), ("--dry-run", "--yes")):
        done = run_clipgan("clean", *options, folder=project.root)
        assert done.returncode == 0, done.stderr
        (row,) = [line for line in done.stdout.splitlines() if "data/.work" in line]
        assert row.split()[:3] == ["5.02", "kB", f"data/.work/train/{old.name}"]
        assert "train, interrupted at 1,024 images" in row
        assert "nothing was removed; `clipgan clean --yes`" in done.stdout
        assert old.exists()
    done = run_clipgan("clean", "--yes", folder=project.root)
    assert done.stdout.splitlines()[-1] == "removed: 5.02 kB are free again"
    assert not old.exists()
    assert newest.exists()


def test_a_person_is_asked(
    project: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_state(project, "train", "a", 50)
    make_state(project, "train", "b", 10)
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, stays in (("", True), ("n", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda question, said=answer: said)
        cleaning.clean(yes=False, dry_run=False)
        assert old.exists() is stays


def test_temporary_images_of_a_living_process_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {f"clipgan-{dead.pid}-abc", f"clipgan-{os.getpid()}-abc", "clipgan-model-new", "other"}
    for name in names:
        (tmp_path / name).mkdir()
    found = [leftover.path.name for leftover in find_temporary_folders(tmp_path)]
    assert found == [f"clipgan-{dead.pid}-abc"]
    long_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / "clipgan-model-new", (long_ago, long_ago))
    assert len(list(find_temporary_folders(tmp_path))) == 2


def test_models_that_were_never_finished_go(project: Workspace) -> None:
    uri = resolve_tracking_uri(project.root, {})
    client = open_client(uri)
    experiment = ensure_experiment(client, uri, "m")
    run = client.create_run(experiment)
    made = [
        client.create_logged_model(experiment, name=name, source_run_id=run.info.run_id)
        for name in ("pending", "ready")
    ]
    client.finalize_logged_model(made[1].model_id, "READY")
    assert list_pending_models(uri) == [made[0].model_id]
    assert made[0].model_id in run_clipgan("clean", folder=project.root).stdout
    assert run_clipgan("clean", "--yes", folder=project.root).returncode == 0
    assert list_pending_models(uri) == []
    assert client.get_logged_model(made[1].model_id)


def test_the_temporary_images_of_a_killed_process_go(
    project: Workspace, own_temporary_folder: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left = own_temporary_folder / f"clipgan-{dead.pid}-abc"
    left.mkdir()
    (left / "image.png").write_bytes(bytes(5000))
    said = run_clipgan("clean", "--yes", folder=project.root).stdout
    assert "temporary images of a killed process" in said
    assert not left.exists()
