"""Family galip from training to a served model: train, evaluate, register, load and draw."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from clipgan.errors import ConfigError
from clipgan.generation.sampler import Sampler
from clipgan.metrics.evaluations import Evaluation
from clipgan.models.bundle import load_bundle, load_bundle_info
from clipgan.stages.evaluate import evaluate
from clipgan.stages.register import register
from clipgan.tracking.packaged_model import GeneratorPackage, save_packaged_model
from tests.stages.test_evaluate import CHANGES as EVALUATION
from tests.stages.test_train_galip import SHORT, _save_raw_bundle
from tests.stages.tiny_galip import TinyVitClip, tiny_galip_params
from tests.stages.tiny_training import build_world, run_training

LOADER = "tests.stages.test_galip_pipeline:load_tiny_sampler"
CPU = torch.device("cpu")


def load_tiny_sampler(
    folder: Path, *, device: torch.device, clip_weights: Path | None = None
) -> Sampler:
    """The signature of the real loader."""
    del clip_weights
    bundle = load_bundle(folder, with_discriminator=False)
    return Sampler(bundle, TinyVitClip(), device)  # type: ignore[arg-type]


def run_evaluation(root: Path, **changes: object) -> Evaluation:
    params = tiny_galip_params({**EVALUATION, **changes})
    return evaluate(
        params.evaluate,
        features_config=params.features,
        training=root / "training",
        images=root / "images",
        features=root / "features",
        output=root / "evaluation",
        cache=None,
        clip=TinyVitClip(),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that went on from official weights, evaluated beside them; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root, clip=TinyVitClip())
    _save_raw_bundle(root / "official")
    changes = {**SHORT, "train.initial_weights": str(root / "official")}
    run_training(root, tiny_galip_params(changes))
    run_evaluation(root)
    return root


def test_both_generators_are_measured(world: Path) -> None:
    tree = json.loads((world / "evaluation" / "evaluation.json").read_text())
    assert "fd_efficientnet_lite0" in json.dumps(tree)
    pictures = load_file(world / "evaluation" / "pictures.safetensors")
    assert {"grid/trained", "grid/initial"} <= pictures.keys()


def test_truncated_styles_are_refused(world: Path) -> None:
    with pytest.raises(ConfigError, match=r"truncation = 0\.5: GALIP has no styles"):
        run_evaluation(world, **{"evaluate.truncation": 0.5})


def test_it_is_registered_and_promoted(world: Path, tracking_uri: str) -> None:
    report = register(
        tiny_galip_params({"register.first_version": "always"}).register_model,
        training=world / "training",
        evaluation=world / "evaluation",
        tracking_uri=tracking_uri,
        experiment="galip",
        clip_weights="built-in",
        state="state",
        measure=lambda version, like: "no other version here",
    )
    assert report.decision.promoted


def test_the_packaged_model_draws_what_the_sampler_draws(world: Path, tmp_path: Path) -> None:
    import mlflow

    folder = tmp_path / "model"
    save_packaged_model(folder, GeneratorPackage(world / "training", LOADER))
    served = mlflow.pyfunc.load_model(str(folder))
    found = served.predict(pd.DataFrame({"prompt": ["a dot"]}), params={"seed": 3})
    wanted = load_tiny_sampler(world / "training", device=CPU).sample_png(["a dot"], seed=3)
    assert found["png"].tolist() == wanted
    assert load_bundle_info(world / "training").family == "galip"
