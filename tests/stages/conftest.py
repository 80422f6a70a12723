"""Fixtures that the stages' tests share; ``world`` is a module's own folder, only read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipgan.training import fingerprint
from tests.stages.tiny_training import single_thread


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """The world's images and features alone, to write beside."""
    for name in ("images", "features"):
        shutil.copytree(world / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def stable_code() -> Iterator[None]:
    """Sources may be edited while the tests run, and `monkeypatch.undo` in a test keeps that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "hash_sources", lambda *modules: modules)
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The order of sums, and with it the last bits, depends on the number of threads."""
    with single_thread():
        yield
