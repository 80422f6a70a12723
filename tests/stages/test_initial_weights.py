"""Trainings that start from a registered model or from a checkpoint of another training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.artifacts import hash_file
from clipgan.errors import CheckpointError, RegistryError
from clipgan.models.bundle import load_bundle, load_bundle_info
from clipgan.resume_state import is_finished
from clipgan.stages.model_addresses import START_FOLDER, opened_start
from clipgan.tracking.packaged_model import GeneratorPackage
from tests.metric_values import value_of
from tests.mlflow_stores import register_values
from tests.params import params_with
from tests.stages.tiny_training import TinyClip, build_world, run_training, tiny_params
from tests.unit.tracking.tiny_sampler import LOADER


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features, a training, and the last checkpoint of that training."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    torch.set_num_threads(1)
    checkpoints = root / "work" / "train"

    run_training(root, tiny_params())
    newest = max(checkpoints.glob("*/checkpoints/checkpoint-*"))
    shutil.copytree(newest, root / "checkpoint")
    return root


def _train_from(root: Path, initial: str, uri: str = "unused") -> Any:
    """As `clipgan stage train` does it."""
    params = tiny_params({"train.initial_weights": initial, "train.total_images": 16})
    work = root / "work" / "train"
    with opened_start(initial, work=work, tracking_uri=uri, family="lafite") as folder:
        report = run_training(root, params, initial_folder=folder)
    (state,) = work.iterdir()
    assert is_finished(state), "what was fetched or converted was left behind"
    shutil.rmtree(state)
    return report


def test_a_checkpoint_is_a_start(copy: Path, world: Path) -> None:
    report = _train_from(copy, str(world / "checkpoint"))
    assert report.initial_images_seen == 96
    assert report.initial_weights == str(world / "checkpoint")
    initial = load_bundle(copy / "training" / "initial")
    trained = load_bundle(world / "training")
    for name, tensor in trained.generator.state_dict().items():
        assert torch.equal(tensor, initial.generator.state_dict()[name])
    assert load_bundle_info(copy / "training").images_seen == 96 + 16


def test_a_checkpoint_is_as_good_as_the_bundle_made_of_it(copy: Path, world: Path) -> None:
    _train_from(copy, str(world / "checkpoint"))
    first = hash_file(copy / "training" / "generator.safetensors")
    _train_from(copy, str(world / "training"))
    assert hash_file(copy / "training" / "generator.safetensors") == first


def test_a_registered_model_is_a_start(copy: Path, world: Path, tracking_uri: str) -> None:
    config = params_with({"register.model_name": "tiny", "register.gate_metric": "fd"})
    package = GeneratorPackage(world / "training", LOADER, None)
    entries = {"fd": value_of("fd", 1.0)}
    run_id = register_values(config.register_model, package, tracking_uri, entries).run_id
    for address in ("models:/tiny@challenger", f"runs:/{run_id}", "models:/tiny/1"):
        report = _train_from(copy, address, tracking_uri)
        assert (report.initial_images_seen, report.initial_weights) == (96, address)
    provenance = load_bundle_info(copy / "training").provenance
    assert provenance["initial_weights"] == "models:/tiny/1"
    with pytest.raises(RegistryError, match="models:/tiny/7 cannot be loaded"):
        _train_from(copy, "models:/tiny/7", tracking_uri)
    assert not (copy / "work" / "train" / START_FOLDER).exists()


def test_an_address_is_fetched_by_the_stage_alone(copy: Path) -> None:
    with pytest.raises(CheckpointError, match=r"models:/tiny/1: no generator bundle .*none starts"):
        run_training(copy, tiny_params({"train.initial_weights": "models:/tiny/1"}))


def test_a_damaged_checkpoint_is_named_and_leaves_nothing(copy: Path, world: Path) -> None:
    shutil.copytree(world / "checkpoint", copy / "checkpoint")
    (copy / "checkpoint" / "discriminator.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"discriminator.safetensors: No such file"):
        _train_from(copy, str(copy / "checkpoint"))
    assert not (copy / "work" / "train" / START_FOLDER).exists()


def test_a_bundle_for_another_clip_width_is_refused(copy: Path, world: Path) -> None:
    class WideClip(TinyClip):
        embed_dim = 9

    wide = copy / "wide"
    wide.mkdir()
    shutil.copytree(world / "images", wide / "images")
    from clipgan.stages.features import extract_features

    extract_features(
        tiny_params().features,
        images=wide / "images",
        features=wide / "features",
        work=wide / "work",
        clip=WideClip(),  # type: ignore[arg-type]
    )
    params = tiny_params({"train.initial_weights": str(world / "training")})
    with pytest.raises(
        CheckpointError,
        match=r"CLIP features 6 wide \(tiny\), features.clip_model gives 9.*clip_model to tiny",
    ):
        run_training(wide, params, clip=WideClip())


def test_frozen_blocks_need_a_discriminator(copy: Path, world: Path) -> None:
    bundle = copy / "bundle"
    shutil.copytree(world / "training", bundle)
    info = json.loads((bundle / "bundle.json").read_text())
    del info["architecture"]["discriminator"]
    (bundle / "bundle.json").write_text(json.dumps(info))
    changes = {"train.initial_weights": str(bundle), "train.lafite.freeze_discriminator_blocks": 1}
    with pytest.raises(CheckpointError, match=r"no discriminator of 8 px.*= 1.*set it to 0"):
        run_training(copy, tiny_params(changes))


def test_frozen_blocks_stay_as_they_came(copy: Path, world: Path) -> None:
    changes = {
        "train.initial_weights": str(world / "training"),
        "train.lafite.freeze_discriminator_blocks": 1,
        "train.total_images": 16,
    }
    run_training(copy, tiny_params(changes))
    before, after = load_bundle(world / "training"), load_bundle(copy / "training")
    assert before.discriminator is not None
    assert after.discriminator is not None
    trained = after.discriminator.state_dict()
    same = {k for k, v in before.discriminator.state_dict().items() if torch.equal(v, trained[k])}
    assert same == {name for name in trained if name.startswith("blocks.8.")}


def test_a_missing_bundle_is_refused(copy: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.*no generator bundle.*none"):
        run_training(copy, tiny_params({"train.initial_weights": str(copy / "nowhere")}))
    assert not (copy / "training").exists()
