"""A finished stage whose process dies before DVC has recorded its result loses no work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from clipgan import artifacts
from clipgan.clip import feature_store
from clipgan.data import processing
from clipgan.data.shards import load_manifest
from clipgan.families.lafite.training import step as lafite_step
from clipgan.resume_state import hash_like_dvc, is_finished, remove_recorded
from clipgan.stages import pretrain_generator as stage
from clipgan.stages.features import extract_features
from tests.stages.ingest_runs import fill_folder, make_config, run, snapshot
from tests.stages.tiny_training import (
    TinyClip,
    build_world,
    hash_training,
    run_training,
    single_thread,
    tiny_params,
)

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")

DIES = """
import os, signal, sys
from pathlib import Path
import torch
from clipgan.stages import train
from clipgan.training.output import place_output
from tests.stages.tiny_training import run_training, tiny_params
torch.set_num_threads(1)
where = sys.argv[2]
def die(*args, **more):
    if where == "after":
        place_output(*args, **more)
    os.kill(os.getpid(), signal.SIGKILL)
if where == "marking":
    train.mark_finished = die
else:
    train.place_output = die
run_training(Path(sys.argv[1]), tiny_params())
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    with single_thread():
        run_training(root, tiny_params())
    return root


def list_states(root: Path, name: str) -> list[Path]:
    return sorted((root / "work" / name).iterdir())


def forbid_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any, **__: Any) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(lafite_step.LafiteStep, "step", step)


@pytest.mark.parametrize("where", ["before", "after", "marking"])
def test_a_training_killed_around_its_end_trains_nothing_again(
    where: str, copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(copy), where], cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL
    # What DVC does before it runs the stage again.
    shutil.rmtree(copy / "training", ignore_errors=True)
    forbid_steps(monkeypatch)
    assert run_training(copy, tiny_params()).resumed_from == 96
    assert hash_training(copy / "training") == hash_training(world / "training")


def test_a_finished_training_stays_until_dvc_lock_names_it(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(copy, tiny_params())
    (state,) = list_states(copy, "train")
    assert is_finished(state)
    with monkeypatch.context() as patch:
        forbid_steps(patch)
        shutil.rmtree(copy / "training")
        run_training(copy, tiny_params())
    assert hash_training(copy / "training") == hash_training(world / "training")
    lock = copy / "dvc.lock"
    lock.write_text(f"md5: {hash_like_dvc(copy / 'training')}\n")
    assert remove_recorded(copy / "work" / "train", lock) == [state]
    assert list_states(copy, "train") == []


def test_finished_features_are_not_computed_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CountingClip(TinyClip):
        num_images = 0

        def encode_images(self, images: Tensor) -> Tensor:
            self.num_images += len(images)
            return super().encode_images(images)

    def extract() -> int:
        clip = CountingClip()
        extract_features(
            tiny_params().features,
            images=copy / "images",
            features=copy / "features",
            work=copy / "work" / "features",
            clip=clip,  # type: ignore[arg-type]
        )
        return clip.num_images

    shutil.rmtree(copy / "features")
    assert extract() == 24
    expected = snapshot(copy / "features")
    assert sorted(expected) == ["features-00000.parquet", feature_store.MANIFEST]
    shutil.rmtree(copy / "features")
    assert extract() == 0
    assert snapshot(copy / "features") == expected


def test_finished_shards_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = fill_folder(tmp_path / "photos")
    run(tmp_path, make_config(photos))
    expected = snapshot(tmp_path / "images")
    shutil.rmtree(tmp_path / "images")
    with monkeypatch.context() as patch:
        patch.setattr(processing, "prepare_image", lambda *_: 1 / 0)
        run(tmp_path, make_config(photos))
    assert snapshot(tmp_path / "images") == expected
    assert load_manifest(tmp_path / "images").num_images
    (state,) = list_states(tmp_path, "")
    assert is_finished(state)


def test_a_pretrained_generator_stands_before_its_state_goes(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {
        "train.resolution_px": 8,
        "pretrain_generator.resolutions_px": [8],
        "pretrain_generator.images": [16],
        "pretrain_generator.learning_rates": [0.01],
        "pretrain_generator.batch_size": 8,
    }
    params = tiny_params(recipe)

    def pretrain() -> None:
        stage.pretrain_generator(
            params.pretrain_generator,
            train_config=params.train,
            monitoring=params.monitoring,
            features_config=params.features,
            images=copy / "images",
            features=copy / "features",
            output=copy / "generator",
            work=copy / "work" / "pretrain_generator",
            clip=TinyClip(),  # type: ignore[arg-type]
        )

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    for name, target in (("replace_folder", artifacts), ("remove_folder", stage)):
        with monkeypatch.context() as patch:
            if name == "remove_folder":
                forbid_steps(patch)
            patch.setattr(target, name, die)
            with pytest.raises(KeyboardInterrupt):
                pretrain()
    forbid_steps(monkeypatch)
    pretrain()
    assert (copy / "generator" / "generator.safetensors").exists()
    assert not (copy / "work" / "pretrain_generator").exists()
    assert artifacts.hash_file(copy / "generator" / "generator.safetensors")
