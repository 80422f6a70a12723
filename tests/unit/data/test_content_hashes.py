"""Contents are read once, and again whenever a file looks different."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clipgan.artifacts import hash_file
from clipgan.data import content_hashes
from clipgan.data.content_hashes import hash_files


class Reader:
    """Counts the files that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        monkeypatch.setattr(content_hashes, "hash_file", self.read)
        # Files of this very moment would be read again each time.
        monkeypatch.setattr(content_hashes, "SETTLED_SECONDS", 0.0)

    def read(self, path: Path) -> str:
        self.names.append(path.name)
        return hash_file(path)

    def take(self) -> list[str]:
        names, self.names = self.names, []
        return names


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(monkeypatch)


def hash_all(folder: Path) -> dict[str, str | None]:
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".png")
    time.sleep(0.02)  # the file system's clock ticks every few milliseconds
    found = hash_files([(path, path.stat()) for path in paths], folder / "memory.json")
    return {path.name: digest for path, digest in zip(paths, found, strict=True)}


def test_an_unchanged_file_is_read_once(tmp_path: Path, reader: Reader) -> None:
    for name in ("a.png", "b.png", os.fsdecode(b"caf\xe9.png")):
        (tmp_path / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    first = hash_all(tmp_path)
    assert len(reader.take()) == 3
    assert hash_all(tmp_path) == first
    assert reader.take() == []
    (tmp_path / "a.png").touch()
    assert hash_all(tmp_path) == first
    assert reader.take() == ["a.png"]


def test_a_file_replaced_at_equal_size_and_time_is_read_again(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    first, status = hash_all(tmp_path), path.stat()
    path.write_bytes(b"after!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert hash_all(tmp_path) != first


def test_a_file_of_this_moment_is_not_trusted_to_stay(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_hashes, "SETTLED_SECONDS", 60.0)
    (tmp_path / "a.png").write_bytes(b"a")
    hash_all(tmp_path)
    hash_all(tmp_path)
    assert reader.take() == ["a.png", "a.png"]


def test_a_stopped_look_keeps_what_it_read(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")

    def stop(path: Path) -> str:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return reader.read(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(content_hashes, "hash_file", stop)
        hash_all(tmp_path)
    reader.take()
    hash_all(tmp_path)
    assert reader.take() == ["b.png"]


@pytest.mark.parametrize("damage", ["", "[]", '{"a": 1}', '{"a": [[1], "x"'])
def test_a_damaged_memory_is_made_anew(damage: str, tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    first = hash_all(tmp_path)
    (tmp_path / "memory.json").write_text(damage)
    reader.take()
    assert hash_all(tmp_path) == first
    assert reader.take() == ["a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_has_no_hash(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "a.png").chmod(0)
    assert hash_all(tmp_path) == {"a.png": None}
