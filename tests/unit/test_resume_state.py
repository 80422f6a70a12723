"""When the state of a finished stage may go: once dvc.lock names the result, by DVC's own hash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from clipgan.resume_state import (
    hash_like_dvc,
    is_finished,
    mark_finished,
    remove_abandoned,
    remove_folder,
    remove_recorded,
)

NAME = "0123456789abcdef"


def make_output(folder: Path) -> Path:
    (folder / "samples" / "deep").mkdir(parents=True)
    # DVC sorts by the whole relative path: "samples-2" comes before "samples/...".
    for name in ("generator.bin", "samples/deep/a.png", "samples-2", "Ä.txt", "empty"):
        (folder / name).write_bytes(name.encode() * 100 if name != "empty" else b"")
    return folder


def test_the_hash_is_the_one_in_dvc_lock(tmp_path: Path) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  s:\n    cmd: python make.py\n    outs: [data/training]\n"
    )
    (tmp_path / "make.py").write_text("import shutil; shutil.copytree('source', 'data/training')\n")
    make_output(tmp_path / "source")
    (tmp_path / "data").mkdir()
    for command in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
        subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=tmp_path, env=environment, check=True
        )
    lock = YAML(typ="safe", pure=True).load((tmp_path / "dvc.lock").read_text())
    assert hash_like_dvc(tmp_path / "data" / "training") == lock["stages"]["s"]["outs"][0]["md5"]
    state = tmp_path / "work" / NAME
    mark_finished(state, tmp_path / "data" / "training")
    assert remove_recorded(state.parent, tmp_path / "dvc.lock") == [state]
    assert list(state.parent.iterdir()) == []


def test_another_result_in_the_lock_or_none_keeps_the_state(tmp_path: Path) -> None:
    state, lock = tmp_path / "work" / NAME, tmp_path / "dvc.lock"
    mark_finished(state, make_output(tmp_path / "output"))
    assert remove_recorded(state.parent, lock) == []
    other = hash_like_dvc(make_output(tmp_path / "other" / "folder").parent)
    lock.write_text(f"md5: {other}\n")
    assert remove_recorded(state.parent, lock) == []
    assert is_finished(state)


def test_what_was_logged_and_not_sent_stays(tmp_path: Path) -> None:
    state, lock = tmp_path / "work" / NAME, tmp_path / "dvc.lock"
    output = make_output(tmp_path / "output")
    mark_finished(state, output)
    for name in ("checkpoints", "spool"):
        (state / name).mkdir()
    (state / "mlflow.json").write_text("{}")
    (state / "spool" / "records.jsonl").write_text("{}\n")
    (state / "spool" / "position.json").write_text('{"bytes": 2}')
    lock.write_text(f"md5: {hash_like_dvc(output)}\n")
    assert remove_recorded(state.parent, lock) == [state]
    assert sorted(path.name for path in state.iterdir()) == ["mlflow.json", "spool"]
    assert remove_recorded(state.parent, lock) == []
    mark_finished(state, output)
    (state / "spool" / "position.json").write_text('{"bytes": 3}')
    assert remove_recorded(state.parent, lock) == [state]
    assert not state.exists()


def test_only_unfinished_states_are_abandoned(tmp_path: Path) -> None:
    mark_finished(tmp_path / NAME, make_output(tmp_path / "output"))
    (tmp_path / "f" / "x").mkdir(parents=True)
    abandoned = tmp_path / ("f" * 16)
    abandoned.mkdir()
    (abandoned / "checkpoints").mkdir()
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "f", "output"]


def test_a_removal_cut_short_leaves_no_half_state_and_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / NAME
    mark_finished(state, make_output(tmp_path / "output"))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(state)
    assert not state.exists() or is_finished(state)
