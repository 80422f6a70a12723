"""A third family, one folder (``tests/toy_family``) and one line of the registry, from training to
a served model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

import tests.params
from clipgan.config import Params
from clipgan.families.registry import FAMILIES, FamilySpec
from clipgan.generation.sampler import Sampler
from clipgan.models.bundle import load_bundle, load_bundle_info
from clipgan.source_code import list_sources
from clipgan.stages.evaluate import evaluate
from clipgan.stages.register import register
from clipgan.tracking.packaged_model import GeneratorPackage, save_packaged_model
from clipgan.training.state import StepLosses
from tests.params import tree_with
from tests.stages.test_evaluate import CHANGES as EVALUATION
from tests.stages.tiny_training import (
    TinyClip,
    build_world,
    hash_training,
    run_training,
    tiny_params,
)
from tests.toy_family.training import ToyStep

LOADER = "tests.stages.test_toy_family:load_toy_sampler"
TOY = {
    "latent_dim": 4,
    "losses": {"reconstruction_weight": 0.0},
    "optimizer": {
        "generator_learning_rate": 0.01,
        "discriminator_learning_rate": 0.01,
        "beta1": 0.0,
        "beta2": 0.99,
        "epsilon": 1.0e-8,
    },
}


def toy_params(changes: dict[str, Any] | None = None) -> Params:
    return tiny_params({**EVALUATION, "train.family": "toy", **(changes or {})})


def load_toy_sampler(
    folder: Path, *, device: torch.device, clip_weights: Path | None = None
) -> Sampler:
    del clip_weights
    bundle = load_bundle(folder, with_discriminator=False)
    return Sampler(bundle, TinyClip(), device)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The line of the registry, and the section of params.yaml."""
    file = tmp_path_factory.mktemp("toy") / "params.yaml"
    tree = tree_with()
    tree["train"]["toy"] = TOY
    with pytest.MonkeyPatch.context() as patch, file.open("w") as stream:
        YAML().dump(tree, stream)
        stream.flush()
        patch.setattr(tests.params, "PARAMS_YAML", file)
        patch.setitem(FAMILIES, "toy", FamilySpec("toy", "tests.toy_family"))
        yield


@pytest.fixture(scope="module")
def world(_registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with its evaluation; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    run_training(root, toy_params(), clip=TinyClip())
    params = toy_params()
    evaluate(
        params.evaluate,
        features_config=params.features,
        training=root / "training",
        images=root / "images",
        features=root / "features",
        output=root / "evaluation",
        cache=None,
        clip=TinyClip(),  # type: ignore[arg-type]
    )
    return root


def test_it_goes_on_where_it_was_stopped(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_world(tmp_path)
    step = ToyStep.step

    def stopping(self: ToyStep, batch: Any, images_seen: int, random: Any) -> StepLosses:
        if images_seen == 40:
            raise KeyboardInterrupt
        return step(self, batch, images_seen, random)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ToyStep, "step", stopping)
        run_training(tmp_path, toy_params(), clip=TinyClip())
    assert run_training(tmp_path, toy_params(), clip=TinyClip()).resumed_from == 32
    assert hash_training(tmp_path / "training") == hash_training(world / "training")


def test_it_starts_from_its_own_bundle(world: Path, tmp_path: Path) -> None:
    build_world(tmp_path)
    params = toy_params({"train.initial_weights": str(world / "training")})
    assert run_training(tmp_path, params, clip=TinyClip()).initial_images_seen == 96


def test_it_is_evaluated_registered_and_served(
    world: Path, tracking_uri: str, tmp_path: Path
) -> None:
    import mlflow

    report = register(
        toy_params({"register.first_version": "always"}).register_model,
        training=world / "training",
        evaluation=world / "evaluation",
        tracking_uri=tracking_uri,
        clip_weights="built-in",
        state="state",
        measure=lambda version, like: "no other version here",
    )
    assert report.decision.promoted
    save_packaged_model(tmp_path / "model", GeneratorPackage(world / "training", LOADER))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = served.predict(pd.DataFrame({"prompt": ["a dot"]}), params={"seed": 3})
    sampler = load_toy_sampler(world / "training", device=torch.device("cpu"))
    assert found["png"].tolist() == sampler.sample_png(["a dot"], seed=3)
    assert load_bundle_info(world / "training").family == "toy"


def test_a_training_rests_on_the_code_of_its_own_family_alone() -> None:
    sources = list_sources("clipgan.stages.train", "tests.toy_family.training")
    assert {"tests.toy_family.training", "tests.toy_family.networks"} <= sources
    assert not [name for name in sources if ".lafite" in name or ".galip" in name]
