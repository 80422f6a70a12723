"""Checkpoints are whole or absent."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import torch

from clipgan.errors import CheckpointError
from clipgan.training import checkpoint as checkpoint_module
from clipgan.training.checkpoint import CheckpointStore


def _store(folder: Path, fingerprint: str = "f") -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", keep=2, fingerprint=fingerprint)


def _save(store: CheckpointStore, images_seen: int) -> Path:
    tensors = {
        "networks": {"w": torch.full((3,), float(images_seen))},
        "means": {"m": torch.ones(())},
    }
    return store.save(images_seen, {"seconds": 0.1 + images_seen}, tensors)


def test_nothing_written_is_no_checkpoint(tmp_path: Path) -> None:
    assert _store(tmp_path).load_newest() is None


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    store = _store(tmp_path)
    odd = torch.tensor([float("inf"), -0.0, 1e-42, 1 / 3])
    tensors = {
        "a": {"odd": odd, "half": odd.bfloat16(), "count": torch.tensor(7)},
        "b": {"t": odd.double()},
    }
    store.save(64, {"seconds": 0.1, "history": {"rows": [{"x": 1 / 3}]}}, tensors)
    loaded = store.load_newest()
    assert loaded is not None
    assert loaded.images_seen == 64
    assert loaded.progress == {"seconds": 0.1, "history": {"rows": [{"x": 1 / 3}]}}
    for group, entries in tensors.items():
        for name, tensor in entries.items():
            found = loaded.tensors[group][name]
            assert found.dtype == tensor.dtype
            assert found.shape == tensor.shape
            assert (
                found.view(-1).view(torch.uint8).tolist()
                == tensor.view(-1).view(torch.uint8).tolist()
            )


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for images_seen in (0, 900, 1000, 10_000):
        _save(store, images_seen)
    assert [folder.name[-5:] for folder in store.list_folders()] == ["01000", "10000"]
    assert sorted(p.name for p in store.folder.iterdir()) == [f.name for f in store.list_folders()]


@pytest.mark.parametrize("file", ["networks.safetensors", "checkpoint.json"])
def test_half_a_file_means_the_one_before(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = _store(tmp_path)
    _save(store, 100)
    damaged = _save(store, 200) / file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        loaded = store.load_newest()
    assert loaded is not None
    assert loaded.images_seen == 100
    assert "checkpoint-000000000200 is damaged" in caplog.text
    assert file in caplog.text


def test_flipped_bit_is_noticed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _save(store, 100)
    path = _save(store, 200) / "networks.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    loaded = store.load_newest()
    assert loaded is not None
    assert loaded.images_seen == 100


def test_missing_file_is_noticed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _save(store, 100)
    (_save(store, 200) / "means.safetensors").unlink()
    loaded = store.load_newest()
    assert loaded is not None
    assert loaded.images_seen == 100


def test_none_readable_names_folder_and_fix(tmp_path: Path) -> None:
    store = _store(tmp_path)
    (_save(store, 100) / "checkpoint.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"checkpoints: none of its 1 .* delete this folder"):
        store.load_newest()


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    _save(_store(tmp_path, "one"), 100)
    with pytest.raises(CheckpointError):
        _store(tmp_path, "other").load_newest()


def test_unfinished_folder_is_ignored_and_replaced(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _save(store, 100)
    # What SIGKILL in the middle of a save or a removal leaves behind.
    for name in (".checkpoint-000000000200.partial", ".checkpoint-000000000050.removed"):
        (store.folder / name).mkdir()
        (store.folder / name / "networks.safetensors").write_bytes(b"half")
    loaded = store.load_newest()
    assert loaded is not None
    assert loaded.images_seen == 100
    _save(store, 200)
    assert [p.name for p in sorted(store.folder.iterdir())] == [
        "checkpoint-000000000100",
        "checkpoint-000000000200",
    ]


def test_full_disk_leaves_the_last_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path)
    _save(store, 100)
    write = checkpoint_module._write

    def write_until_full(path: Path, data: bytes) -> str:
        if path.name == "means.safetensors":
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(checkpoint_module, "_write", write_until_full)
    with pytest.raises(
        CheckpointError,
        match=r"200 images.*No space left on device.*000100 is intact.*free disk space",
    ):
        _save(store, 200)
    assert [p.name for p in store.folder.iterdir()] == ["checkpoint-000000000100"]
    loaded = store.load_newest()
    assert loaded is not None
    assert loaded.images_seen == 100
