"""The train stage with a warm-up by drifting: both families, resume, growing, processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipgan.config import Params
from clipgan.stages.pretrain_generator import pretrain_generator
from clipgan.training.checkpoint import CheckpointStore
from tests.stages.tiny_galip import CHANGES as GALIP
from tests.stages.tiny_galip import TinyVitClip
from tests.stages.tiny_training import (
    assert_same_training,
    build_world,
    hash_training,
    run_training,
    single_thread,
    tiny_params,
)

pytestmark = pytest.mark.usefixtures("stable_code")

ROOT = Path(__file__).parents[2]
DRIFTING: dict[str, Any] = {
    "train.precision": "fp32",  # reduced precision would hide what differs
    "train.total_images": 48,
    "train.warm_up_images": 32,
    "train.warm_up_loss": "drifting",
    "train.drifting.latents": 2,
    "train.drifting.positives": 3,
    "train.drifting.depths": 2,
    "train.mirror": True,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "lafite": DRIFTING
    | {
        "train.lafite.losses.gather_negatives": True,
        # The first look at the discriminator has other groups where processes share a batch.
        "train.lafite.discriminator.minibatch_std_group": 1,
    },
    "galip": DRIFTING | GALIP,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features and uninterrupted trainings; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root, clip=TinyVitClip())
    with single_thread():
        for family, changes in FAMILIES.items():
            run_training(root, tiny_params(changes), output=family)
    return root


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_after_every_checkpoint_ends_with_the_same_bits(
    family: str, copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    save = CheckpointStore.save

    def save_then_die(store: CheckpointStore, images_seen: int, *rest: Any) -> Path:
        save(store, images_seen, *rest)
        raise Killed

    monkeypatch.setattr(CheckpointStore, "save", save_then_die)
    for _ in range(3):
        with pytest.raises(Killed):
            run_training(copy, tiny_params(FAMILIES[family]), output=family)
    monkeypatch.setattr(CheckpointStore, "save", save)
    report = run_training(copy, tiny_params(FAMILIES[family]), output=family)
    assert report.resumed_from == 32
    assert hash_training(copy / family) == hash_training(world / family)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_history_tells_the_warm_up_from_the_rest(family: str, world: Path) -> None:
    rows = json.loads((world / family / "history.json").read_text())
    drifting = [row["images_seen"] for row in rows if "drifting" in row]
    adversarial = [row["images_seen"] for row in rows if "generator_adversarial" in row]
    assert (drifting, adversarial) == ([16, 32], [48])


def test_a_generator_grows_by_drifting(copy: Path) -> None:
    recipe = {
        "pretrain_generator.resolutions_px": [8],
        "pretrain_generator.images": [16],
        "pretrain_generator.learning_rates": [0.01],
        "pretrain_generator.batch_size": 8,
        "train.warm_up_images": 0,
        "train.lafite.losses.reconstruction_weight": 0.0,
    }
    params: Params = tiny_params(DRIFTING | recipe)
    pretrain_generator(
        params.pretrain_generator,
        train_config=params.train,
        monitoring=params.monitoring,
        features_config=params.features,
        images=copy / "images",
        features=copy / "features",
        output=copy / "generator",
        work=copy / "work" / "pretrain",
        clip=TinyVitClip(),  # type: ignore[arg-type]
    )
    rows = json.loads((copy / "generator" / "history.json").read_text())
    assert [row["images_seen"] for row in rows if "drifting" in row] == [16]
    assert not any("reconstruction" in row for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_equal_one_with_the_double_batch(copy: Path, world: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.stages.tiny_trainings", str(copy / "two"), json.dumps(FAMILIES)]
    (copy / "two").mkdir()
    for name in ("images", "features"):
        shutil.copytree(world / name, copy / "two" / name)
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
    for name in FAMILIES:
        assert_same_training(copy / "two" / name, world / name)
