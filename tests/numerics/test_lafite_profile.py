"""`profiles/lafite-official.yaml` asks for every official form, so its losses are the official."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipgan.config import TrainConfig, load_profile
from clipgan.data.batches import Batch
from clipgan.families.lafite.training.losses import LafiteLosses
from clipgan.random_draws import StepRandom
from clipgan.training.augment import build_augmenter
from tests.numerics.lafite_cases import CONDITIONS, condition, synthesise
from tests.numerics.lafite_reference import (
    TAGS,
    arrays,
    build_discriminator,
    build_generator,
    facts,
    inputs,
    official_view,
)

PROFILE = Path(__file__).parents[2] / "profiles" / "lafite-official.yaml"
RANDOM = StepRandom(torch.device("cpu"))


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return load_profile(PROFILE).train


def build_losses(tag: str, config: TrainConfig, embeddings: Tensor | None = None) -> LafiteLosses:
    """The profile's losses with the reference's discriminator; CLIP's answer is given."""

    def encode(images: Tensor) -> Tensor:
        assert images.shape[-1] == 224, "small images are padded to CLIP's side"
        assert embeddings is not None
        return embeddings

    return LafiteLosses(
        build_discriminator(
            tag,
            semantic_logit=config.lafite.discriminator.semantic_logit,
            normalize_semantic=config.lafite.discriminator.normalize_semantic,
        ),
        encode,
        224,
        config,
        augmenter=build_augmenter(config.augmentation, config.batch_size, torch.device("cpu")),
        all_gather=lambda rows: rows,
    )


@torch.no_grad()
def test_generator_loss(config: TrainConfig) -> None:
    losses = build_losses("r64", config, arrays()["r64.paired.clip_emb"])
    generator = build_generator("r64", config.lafite.generator.text_concat_max_px)
    texts, given = condition("r64", "paired"), inputs("r64")
    batch = Batch(given["images"], given["image_features"], given["text_features"])
    loss = losses.compute_generator_loss(synthesise(generator, "r64", texts), batch, texts, RANDOM)
    wanted = float(arrays()["r64.paired.official.Gmain.loss"].mean())
    assert loss.total.item() == pytest.approx(wanted, rel=1e-5)
    assert set(loss.terms) == {"generator_adversarial", "generator_contrastive", "clip_contrastive"}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("name", CONDITIONS)
def test_discriminator_losses(config: TrainConfig, tag: str, name: str) -> None:
    losses, images = build_losses(tag, config), inputs(tag)["images"]
    texts = condition(tag, name)
    with torch.no_grad():
        fakes = synthesise(build_generator(tag), tag, texts)
        loss = losses.compute_discriminator_loss(fakes, images, texts, RANDOM)
    wanted = float(arrays()[f"{tag}.{name}.official.Dmain.loss"].mean())
    assert loss.total.item() == pytest.approx(wanted, rel=1e-5)
    penalty = (
        config.lafite.losses.r1_gamma / 2 * losses.compute_gradient_penalty(images, texts, RANDOM)
    )
    wanted = float(arrays()[f"{tag}.{name}.official.Dreg.loss"].mean())
    assert penalty.item() == pytest.approx(wanted, rel=1e-4)


def test_numbers_are_the_reference_ones(config: TrainConfig) -> None:
    hyper, network = facts()["hyper"]["r64"], facts()["config"]["r64"]
    losses, generator = config.lafite.losses, config.lafite.generator
    wanted: dict[str, tuple[Any, Any]] = {
        "itd": (losses.discriminator_contrastive_weight, hyper["itd"]),
        "itc": (losses.clip_contrastive_weight, hyper["itc"]),
        "iid": (losses.discriminator_image_contrastive_weight, hyper["iid"]),
        "iic": (losses.clip_image_contrastive_weight, hyper["iic"]),
        "temperature": (losses.temperature, hyper["temp"]),
        "r1_gamma": (losses.r1_gamma, hyper["r1_gamma"]),
        "path_length": (losses.path_length_weight, hyper["pl_weight"]),
        "decay": (losses.path_length_decay, hyper["pl_decay"]),
        "shrink": (1 / losses.path_length_batch_fraction, hyper["pl_batch_shrink"]),
        "z": (generator.latent_dim, network["z_dim"]),
        "w": (generator.style_dim, network["w_dim"]),
        "mapping": (generator.mapping_layers, network["mapping_num_layers"]),
        "change": (generator.text_concat_max_px, network["change"]),
        "group": (config.lafite.discriminator.minibatch_std_group, network["mbstd_group_size"]),
        "gain": (generator.text_gain, 1.0),
        "text path": (generator.text_learning_rate_multiplier, 0.01),
        "half life": (config.ema.half_life_kimg, config.batch_size * 10 / 32),
    }
    assert {name: pair for name, pair in wanted.items() if pair[0] != pair[1]} == {}
    assert losses.contrastive_axis == "image", "lam 0"
    levels = config.pseudo_text.noise_level, config.pseudo_text.true_text_noise_level
    assert levels == pytest.approx((0.75 / 0.25, 0.1 / 0.9), rel=1e-3)
    assert config.lafite.clip_view.model_copy(update={"crops": 1}) == official_view()
