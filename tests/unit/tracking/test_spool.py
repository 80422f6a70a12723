"""Records on disk: whole, in order, and none lost to a kill or a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from clipgan.errors import RegistryError
from clipgan.resume_state import has_waiting
from clipgan.tracking import spool as spool_module
from clipgan.tracking.spool import RunHeader, Spool, find_spools, load_header

HEADER = RunHeader("key", "experiment", "name", 0)


def steps(spool: Spool) -> list[int]:
    return [record["step"] for record, _ in spool.read()]


def append(spool: Spool, *new_steps: int) -> None:
    for step in new_steps:
        spool.append("metrics", step=step, values={"loss": 1.0, "penalty": float("nan")})


def test_records_come_back_in_order_with_what_waits(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a" / "run", HEADER)
    append(spool, 16, 32)
    (tmp_path / "grid.png").write_bytes(b"picture")
    spool.append_file(tmp_path / "grid.png", "samples")
    (tmp_path / "grid.png").unlink()
    records = list(spool.read())
    assert [record["kind"] for record, _ in records] == ["metrics", "metrics", "file"]
    assert spool.find_file(records[2][0]).read_bytes() == b"picture"
    assert str(spool.count_waiting()) == "4 points and 1 files"
    spool.acknowledge(records[1][1])
    assert str(spool.count_waiting()) == "0 points and 1 files"
    assert has_waiting(spool.folder)
    spool.acknowledge(records[2][1])
    assert not has_waiting(spool.folder)
    assert find_spools(tmp_path) == [spool.folder]


def test_a_file_of_another_file_system_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid.png").write_bytes(b"picture")

    def fail(*_: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    spool = Spool(tmp_path / "run", HEADER)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        spool.append_file(tmp_path / "grid.png", "samples")
    ((record, _),) = spool.read()
    (tmp_path / "grid.png").unlink()
    assert spool.find_file(record).read_bytes() == b"picture"


def test_half_a_line_is_cut_off_when_the_run_goes_on(tmp_path: Path) -> None:
    append(Spool(tmp_path, HEADER), 16)
    with (tmp_path / "spool" / "records.jsonl").open("ab") as handle:
        handle.write(b'{"kind": "metrics", "step": 32, "val')
    spool = Spool(tmp_path, HEADER)
    append(spool, 48)
    assert steps(spool) == [16, 48]


def test_a_full_disk_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, HEADER)
    append(spool, 16)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(spool_module.os, "fsync", fail)
        append(spool, 32, 48)
    assert steps(spool) == [16], "half-written lines stay"
    assert spool.num_unwritten == 2
    assert caplog.text.count("No space left") == 1, "said once"
    append(spool, 64)
    assert steps(spool) == [16, 32, 48, 64]
    assert spool.num_unwritten == 0


def test_another_run_takes_all_records(tmp_path: Path) -> None:
    spool = Spool(tmp_path, HEADER)
    append(spool, 16)
    spool.bind("first")
    spool.acknowledge(next(spool.read())[1])
    spool.bind("first")
    assert not has_waiting(tmp_path)
    spool.bind("second")
    assert has_waiting(tmp_path)
    header = load_header(tmp_path)
    assert header is not None
    assert header.run_id == "second"


def test_only_a_finished_run_that_is_all_sent_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    spool = Spool(folder, HEADER)
    spool.append("status", status="KILLED")

    def send_and_remove() -> bool:
        spool.acknowledge(max(position for _, position in spool.read()))
        spool.remove_if_finished()
        return not folder.exists()

    assert not send_and_remove(), "it may go on"
    spool.append("status", status="FINISHED")
    spool.remove_if_finished()
    assert folder.exists(), "the status is not sent"
    (folder / "checkpoints").mkdir()
    assert not send_and_remove()
    (folder / "checkpoints").rmdir()
    assert send_and_remove()


def test_one_process_sends_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, HEADER)
    with spool.lock_sending(), pytest.raises(Timeout), Spool(tmp_path, HEADER).lock_sending():
        pass
    with spool.lock_sending():
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegistryError, match=r"file/run: what is logged cannot be written there"):
        Spool(tmp_path / "file" / "run", HEADER)


@pytest.mark.parametrize("text", ["", "{", '{"bytes": null}', "[]"])
def test_a_damaged_position_sends_all_again(tmp_path: Path, text: str) -> None:
    spool = Spool(tmp_path, HEADER)
    append(spool, 16)
    (tmp_path / "spool" / "position.json").write_text(text)
    assert spool.position == 0
    assert has_waiting(tmp_path)


def test_a_damaged_line_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, HEADER)
    append(spool, 16)
    with (tmp_path / "spool" / "records.jsonl").open("ab") as handle:
        handle.write(b"\x00\x00\n")
    append(spool, 32)
    found: list[Any] = steps(spool)
    assert found == [16, 32]
    assert "skipping a damaged line" in caplog.text
