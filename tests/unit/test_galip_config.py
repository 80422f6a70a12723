"""GALIP's section refuses what cannot be trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from clipgan.clip.builtin import BUILTIN_MODEL
from clipgan.clip.encoder import load_clip
from clipgan.families.galip.networks.vit_features import build_vit_tower
from clipgan.families.galip.training.start import build_galip_networks
from tests.galip_parts import galip_config
from tests.params import params_with


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_input": "bicubic"}, "clip_input"),
        ({"text_gain": 0.0}, "greater than 0"),
        ({"generator.bridge_channels": 3}, "multiple of 2"),
        ({"generator.prompt_tokens": -1}, "greater than or equal to 0"),
        ({"generator.vit_weight": 0.0}, "set prompt_tokens to 0"),
        (
            {
                "generator.vit_weight": 0.0,
                "generator.bridge_weight": 0.0,
                "generator.prompt_tokens": 0,
            },
            "leave nothing to draw",
        ),
        ({"discriminator.tapped_blocks": []}, "at least 1"),
        ({"discriminator.tapped_blocks": [1, 1]}, "order it upwards"),
        ({"discriminator.tapped_blocks": [-1, 2]}, "greater than or equal to 0"),
        ({"losses.mismatched_share": 1.5}, "less than or equal to 1"),
        ({"losses.ma_gp_power": 1.0}, "greater than or equal to 2"),
        ({"loss_scale.initial_scale": 0.5}, "greater than or equal to 1"),
    ],
)
def test_bad_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        galip_config(changes)


def test_the_section_is_frozen_and_hashable() -> None:
    config = galip_config()
    assert hash(config) == hash(galip_config())
    with pytest.raises(ValidationError):
        config.text_gain = 1.0  # type: ignore[misc]


GALIP = {"train.family": "galip", "train.initial_weights": "none"}


def explain(changes: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as refusal:
        params_with({**GALIP, **changes})
    return str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.family": "dfgan"}, "'dfgan' is no family: use lafite or galip"),
        (
            {"train.latent_codes": 65, "train.galip.generator.latent_dim": 64},
            "latent_codes = 65, but the generator's latent_dim = 64: lower the first or raise",
        ),
        ({"train.augmentation.kind": "ada"}, "set it to diffaugment or none for family galip"),
        ({"train.batch_size": 1}, "greater than or equal to 2"),
        ({"train.resolution_px": 7}, "greater than or equal to 8"),
    ],
)
def test_what_galip_would_leave_out_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in explain(changes)


def test_lafites_rules_do_not_bind_galip() -> None:
    changes = {
        "train.resolution_px": 224,
        "train.batch_size": 6,
        "train.lafite.freeze_discriminator_blocks": 8,
    }
    assert params_with({**GALIP, **changes}).train.resolution_px == 224
    with pytest.raises(ValidationError, match="resolution_px = 224 is no power of two"):
        params_with({"train.resolution_px": 224})


def test_one_line_of_params_yaml_chooses_galip_with_the_built_in_clip() -> None:
    config = params_with({"train.family": "galip"}).train
    device = torch.device("cpu")
    tower = build_vit_tower(load_clip(BUILTIN_MODEL, "built-in", precision="fp32", device=device))
    networks = build_galip_networks(
        config.galip, tower, resolution_px=config.resolution_px, seed=config.seed
    )
    generator = networks.generator_ema
    with torch.no_grad():
        images = generator(torch.randn(1, generator.latent_dim), torch.randn(1, tower.embed_dim))
    assert images.shape == (1, 3, 64, 64)
