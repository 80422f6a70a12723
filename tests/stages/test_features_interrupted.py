"""The feature stage, killed among the captions of a shard."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from clipgan.stages import features as stage
from tests.stages.test_features import IMAGES_PER_SHARD, FakeClip, run, write_images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    return tmp_path


def test_a_kill_among_the_captions_costs_one_part_and_no_byte(root: Path) -> None:
    """SIGKILL at the third part of the second shard's captions, each part two captions long."""
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from clipgan.stages import features
        from tests.stages import test_features as here
        features._TEXTS_PER_PART = 2
        class Dying(here.FakeClip):
            def encode_texts(self, captions):
                if self.num_images > here.IMAGES_PER_SHARD and "picture 8" in captions:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode_texts(captions)
        here.run(Path({str(root)!r}), Dying())
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False)
    assert done.returncode == -signal.SIGKILL
    (parts,) = (root / "work").glob("*/parts/*")
    kept = sorted(path.name for path in parts.iterdir() if not path.name.startswith("."))
    assert kept == ["captions-00000.npy", "images.npy"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_TEXTS_PER_PART", 2)
        clip = FakeClip()
        run(root, clip)
        assert clip.num_images == 2 * IMAGES_PER_SHARD
        assert not {"thing", "picture 5"} & set(clip.captions[:2])
        resumed = read_bytes(root / "features")
        run_anew(root)
    assert read_bytes(root / "features") == resumed
    # The size of a part decides nothing.
    run_anew(root)
    assert read_bytes(root / "features") == resumed


def run_anew(root: Path) -> None:
    for name in ("features", "work"):
        shutil.rmtree(root / name)
    run(root)


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
