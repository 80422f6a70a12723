"""Ingestion interrupted anywhere: nothing is lost, nothing is half written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipgan import artifacts
from clipgan.config import IngestConfig
from clipgan.data import processing
from clipgan.data.shards import load_manifest
from clipgan.errors import DataError
from clipgan.resume_state import is_finished
from tests.stages.ingest_runs import fill_folder, make_config, run, snapshot

ROOT = Path(__file__).parents[2]
SEARCHED = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
"""The code of this tree, whichever one is installed."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "photos")


def reference(tmp_path: Path, photos: Path) -> dict[str, str]:
    run(tmp_path / "reference", make_config(photos))
    return snapshot(tmp_path / "reference" / "images")


class Counter:
    """Counts prepared images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        prepare = processing.prepare_image

        def count_and_prepare(data: bytes, config: IngestConfig) -> Any:
            self.count += 1
            return prepare(data, config)

        monkeypatch.setattr(processing, "prepare_image", count_and_prepare)


@pytest.mark.parametrize("interruption", range(1, 15))
def test_ctrl_c_at_every_write_is_resumed(
    interruption: int, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference(tmp_path, photos)
    replace = Path.replace
    calls = 0

    def interrupt(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == interruption:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, make_config(photos))
    assert not (tmp_path / "images").exists()
    counter = Counter(monkeypatch)
    run(tmp_path, make_config(photos))
    assert snapshot(tmp_path / "images") == expected
    # A shard takes two renames, its own and its journal's; what was journalled is not redone.
    finished = [entry.num_rows for entry in load_manifest(tmp_path / "images").shards]
    assert counter.count == 30 - sum(finished[: (interruption - 1) // 2])


KILLED = """
import sys, time
from pathlib import Path
from clipgan.data import processing
from tests.stages.ingest_runs import make_config, run
prepare = processing.prepare_image
def slow(data, config):
    time.sleep(0.05)
    return prepare(data, config)
processing.prepare_image = slow
run(Path(sys.argv[1]), make_config(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_killed_run_redoes_at_most_one_shard(
    num_shards: int, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference(tmp_path, photos)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(photos)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": SEARCHED})
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("work/*/journal/0*.json"))) < num_shards:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = len(list(tmp_path.glob("work/*/journal/0*.json")))
    counter = Counter(monkeypatch)
    run(tmp_path, make_config(photos))
    assert snapshot(tmp_path / "images") == expected
    rows = [entry.num_rows for entry in load_manifest(tmp_path / "images").shards]
    assert counter.count == 30 - sum(rows[:kept])


def test_a_finished_shard_that_is_cut_short_is_made_again(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = reference(tmp_path, photos)
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "replace_folder", lambda new, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, make_config(photos))
    (shard,) = tmp_path.glob("work/*/shards/images-00002.parquet")
    shard.unlink()
    shard.write_bytes(b"PAR1")
    run(tmp_path, make_config(photos))
    assert "images-00002.parquet: 4 bytes" in capsys.readouterr().out
    assert snapshot(tmp_path / "images") == expected


def test_other_settings_do_not_reuse_the_work_of_an_interrupted_run(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "replace_folder", lambda new, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, make_config(photos, resolution_px=16))
    (tmp_path / "work" / "of-somebody-else").mkdir()
    run(tmp_path, make_config(photos))
    assert load_manifest(tmp_path / "images").resolution_px == 32
    others = [path for path in (tmp_path / "work").iterdir() if not is_finished(path)]
    assert [path.name for path in others] == ["of-somebody-else"]


@pytest.mark.parametrize("edited", [False, True])
def test_shards_of_other_code_are_not_taken_up(
    edited: bool, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "replace_folder", lambda new, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, make_config(photos))
    if edited:
        monkeypatch.setattr("clipgan.data.ingest.hash_sources", lambda module: "edited")
    counter = Counter(monkeypatch)
    run(tmp_path, make_config(photos))
    assert counter.count == (30 if edited else 0)


def test_a_full_disk_is_one_line_and_resumable(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference(tmp_path, photos)
    run(tmp_path, make_config(fill_folder(tmp_path / "old", 3)))
    before = snapshot(tmp_path / "images")
    write = pq.write_table
    written = 0

    def fill_disk(table: pa.Table, path: Path, **options: Any) -> None:
        nonlocal written
        written += 1
        if written == 3:
            path.write_bytes(b"half a shard")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", fill_disk)
        with pytest.raises(DataError, match=r"disk full while writing under .*work") as caught:
            run(tmp_path, make_config(photos))
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path / "images") == before
    assert not list(tmp_path.glob("work/**/.*.partial"))
    counter = Counter(monkeypatch)
    run(tmp_path, make_config(photos))
    assert snapshot(tmp_path / "images") == expected
    assert counter.count < 30


LIMITED = """
import sys
from pathlib import Path
from clipgan.errors import DataError
from tests.stages.ingest_runs import make_config, run
try:
    run(Path(sys.argv[1]), make_config(Path(sys.argv[2])))
except DataError as error:
    print(error)
"""


def test_the_kernel_refusing_to_write_is_told_the_same_way(tmp_path: Path, photos: Path) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(photos)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": SEARCHED, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("disk full while writing under")
    assert not (tmp_path / "images").exists()
