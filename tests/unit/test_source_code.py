"""The sources behind a module, and one hash of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clipgan import source_code
from clipgan.source_code import hash_sources, list_sources


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's sources, to edit; nothing of them is cached."""
    root = tmp_path / "src"
    package = Path(source_code.__file__).parent
    shutil.copytree(package, root / "clipgan", ignore=shutil.ignore_patterns("assets"))
    monkeypatch.setattr(source_code, "_ROOT", root)
    monkeypatch.setattr(source_code, "_parse", source_code._parse.__wrapped__)
    return root / "clipgan"


def hash_now(stage: str) -> str:
    return hash_sources.__wrapped__(f"clipgan.stages.{stage}")


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("artifacts.py", {"ingest", "features", "train", "pretrain_clip", "pretrain_mapper"}),
        ("clip/tokens.py", {"features", "train", "pretrain_clip", "pretrain_mapper"}),
        ("pretraining/tower.py", {"pretrain_clip"}),
        ("pretraining/mapper.py", {"pretrain_mapper"}),
        ("training/loop.py", {"train"}),
        ("data/preparation.py", {"ingest"}),
        ("config/training.py", set()),
        ("progress.py", set()),
        ("stages/__init__.py", set()),
    ],
)
def test_an_edit_reaches_the_stages_that_import_it(
    edited: str, stages: set[str], copied: Path
) -> None:
    names = ("ingest", "features", "train", "pretrain_clip", "pretrain_mapper")
    before = {name: hash_now(name) for name in names}
    path = copied / edited
    path.write_text(path.read_text() + '\n"""edited"""\n')
    assert {name for name in names if hash_now(name) != before[name]} == stages


def test_a_new_import_counts(copied: Path) -> None:
    assert "clipgan.data.splits" not in list_sources("clipgan.stages.features")
    path = copied / "devices.py"
    path.write_text(path.read_text() + "\n\ndef f():\n    from clipgan.data import splits\n")
    assert "clipgan.data.splits" in list_sources("clipgan.stages.features")
