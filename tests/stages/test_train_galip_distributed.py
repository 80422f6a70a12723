"""torchrun and GALIP: two processes on the CPU are one process with the same batch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.models.bundle import load_bundle
from tests.stages.tiny_galip import CHANGES, TinyVitClip, tiny_galip_params
from tests.stages.tiny_training import build_world, run_training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
MIXED: dict[str, Any] = CHANGES | {
    # Reduced precision would hide what differs.
    "train.precision": "fp32",
    "train.pseudo_text.pseudo_text_probability": 0.5,
}
TRAININGS = {
    "mixed": MIXED,
    "centred": MIXED | {"train.pseudo_text.kind": "centred_gaussian"},
    # One row each: the mismatched text is always the other process's.
    "pairs": MIXED | {"train.batch_size": 2, "train.total_images": 24},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainings in one process."""
    root = tmp_path_factory.mktemp("one")
    build_world(root, clip=TinyVitClip())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, changes in TRAININGS.items():
        run_training(root, tiny_galip_params(changes), output=name)
    torch.set_num_threads(threads)
    return root


@pytest.fixture(scope="module")
def two(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trainings in two processes."""
    root = tmp_path_factory.mktemp("two")
    for name in ("images", "features"):
        shutil.copytree(one / name, root / name)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.stages.tiny_trainings", str(root), json.dumps(TRAININGS)]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return root


@pytest.mark.parametrize("name", list(TRAININGS))
def test_two_processes_equal_one_with_the_double_batch(one: Path, two: Path, name: str) -> None:
    first, second = load_bundle(one / name), load_bundle(two / name)
    for network in ("generator", "discriminator"):
        found = getattr(second, network).state_dict()
        for key, expected in getattr(first, network).state_dict().items():
            tolerance = 1e-3 * float(expected.abs().max()) + 1e-6
            assert float((found[key] - expected).abs().max()) < tolerance, key
    histories = [json.loads((root / name / "history.json").read_text()) for root in (one, two)]
    for expected, found in zip(*histories, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
