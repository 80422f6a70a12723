"""The warm-up of a fresh generator: it grows, resumes, and is a start for training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from clipgan.artifacts import hash_file
from clipgan.config import Params
from clipgan.errors import ConfigError, DataError
from clipgan.families.lafite.training.start import build_lafite_networks
from clipgan.models.bundle import BundleInfo, load_bundle, load_bundle_info
from clipgan.stages import pretrain_generator as stage
from tests.params import params_with
from tests.stages.tiny_training import TinyClip, build_world, run_training, tiny_params

pytestmark = pytest.mark.usefixtures("stable_code")

RECIPE = {
    "pretrain_generator.resolutions_px": [8, 16],
    "pretrain_generator.images": [64, 32],
    "pretrain_generator.learning_rates": [0.01, 0.005],
    "pretrain_generator.batch_size": 8,
    "train.resolution_px": 16,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 16 px and features; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root, side_px=16)
    return root


def _run(root: Path, params: Params) -> BundleInfo:
    return stage.pretrain_generator(
        params.pretrain_generator,
        train_config=params.train,
        monitoring=params.monitoring,
        features_config=params.features,
        images=root / "images",
        features=root / "features",
        output=root / "generator",
        work=root / "work" / "pretrain",
        clip=TinyClip(),  # type: ignore[arg-type]
    )


def test_each_resolution_starts_from_the_one_before(copy: Path) -> None:
    info = _run(copy, tiny_params(RECIPE))
    assert info.resolution_px == 16
    assert info.images_seen == 96
    assert load_bundle_info(copy / "generator" / "initial").resolution_px == 8
    assert not (copy / "work" / "pretrain").exists()


def test_a_result_is_a_start_for_training(copy: Path) -> None:
    params = tiny_params({**RECIPE, "train.initial_weights": str(copy / "generator")})
    _run(copy, params)
    report = run_training(copy, params)
    assert report.initial_images_seen == 96


def test_cut_off_between_resolutions_it_ends_the_same(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tiny_params(RECIPE)
    _run(copy, params)
    expected = hash_file(copy / "generator" / "generator.safetensors")
    shutil.rmtree(copy / "generator")

    train, sides = stage.train, []

    def train_once(config: Any, **more: Any) -> Any:
        sides.append(config.resolution_px)
        if sides == [8, 16]:
            raise KeyboardInterrupt
        return train(config, **more)

    monkeypatch.setattr(stage, "train", train_once)
    with pytest.raises(KeyboardInterrupt):
        _run(copy, params)
    assert not (copy / "generator").exists()
    _run(copy, params)
    assert sides == [8, 16, 16]
    assert hash_file(copy / "generator" / "generator.safetensors") == expected


def test_only_reconstruction_is_trained(copy: Path) -> None:
    """The discriminator is the one that a training from nothing would start with."""
    params = tiny_params(RECIPE)
    _run(copy, params)
    found = load_bundle(copy / "generator").discriminator
    assert found is not None
    config = stage.build_warm_up(params.pretrain_generator, params.train, 1, initial_weights="none")
    fresh = build_lafite_networks(config, TinyClip().embed_dim).discriminator.state_dict()
    for name, tensor in found.state_dict().items():
        assert (tensor == fresh[name]).all()


def test_images_smaller_than_asked_are_refused(copy: Path) -> None:
    recipe = {**RECIPE, "pretrain_generator.resolutions_px": [8, 32], "train.resolution_px": 32}
    with pytest.raises(DataError, match="resolution_px = 32, but the images are stored at 16"):
        _run(copy, tiny_params(recipe))


def test_last_resolution_must_be_the_trainings(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"resolutions_px ends at 16.*train.resolution_px = 8"):
        _run(copy, tiny_params({**RECIPE, "train.resolution_px": 8}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrain_generator.images": [64]}, "different lengths"),
        ({"pretrain_generator.learning_rates": [0.01]}, "different lengths"),
        ({"pretrain_generator.resolutions_px": [16, 8]}, "does not grow"),
        ({"pretrain_generator.resolutions_px": [12, 16]}, "= 12 is no power of two"),
    ],
)
def test_wrong_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params_with({**RECIPE, **changes})
