"""Growing: a larger generator starts as the smaller one it was loaded from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.errors import CheckpointError
from clipgan.families.lafite.training.start import build_lafite_networks, load_initial_weights
from clipgan.models.bundle import BundleInfo, save_bundle
from clipgan.training.fine_tuning import Networks
from tests.params import params_with

TEXT_DIM = 12
CLIP = {"model": "tiny"}
SMALL: dict[str, Any] = {
    "train.lafite.generator.latent_dim": 8,
    "train.lafite.generator.style_dim": 8,
    "train.lafite.generator.text_hidden_dim": 8,
    "train.lafite.generator.mapping_layers": 2,
    "train.lafite.generator.channel_base": 64,
    "train.lafite.generator.channel_max": 8,
    "train.lafite.discriminator.channel_base": 64,
    "train.lafite.discriminator.channel_max": 8,
}


def _build(resolution_px: int, seed: int = 0, **generator: object) -> Networks:
    changes = {f"train.lafite.generator.{key}": value for key, value in generator.items()}
    params = params_with(
        {**SMALL, "train.resolution_px": resolution_px, "train.seed": seed, **changes}
    )
    return build_lafite_networks(params.train, TEXT_DIM)


def _save(folder: Path, networks: Networks) -> Path:
    side = networks.generator.resolution_px
    info = BundleInfo(
        family="lafite", clip=CLIP, resolution_px=side, images_seen=5, provenance={"seed": 0}
    )
    save_bundle(folder, networks.generator, networks.discriminator, info, dtype="fp32")
    return folder


def test_grown_generator_shows_the_smaller_ones_images(tmp_path: Path) -> None:
    small, large = _build(8), _build(32, seed=1)
    folder = _save(tmp_path / "bundle", small)
    before = {name: t.clone() for name, t in large.discriminator.state_dict().items()}
    info = load_initial_weights(large, folder, CLIP)
    assert info.resolution_px == 8

    with torch.no_grad():
        for side in ("16", "32"):
            for parameter in large.generator.blocks[side].to_rgb.parameters():
                parameter.zero_()
        draws = torch.Generator().manual_seed(0)
        latents = torch.randn(3, 8, generator=draws)
        text = torch.nn.functional.normalize(torch.randn(3, TEXT_DIM, generator=draws), dim=1)
        expected = small.generator(latents, text)
        for _ in range(2):
            expected = large.generator.filter.upsample(expected)
        torch.testing.assert_close(large.generator(latents, text), expected)
    after = large.discriminator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_heads_fit_images_of_any_side_and_grow_along(tmp_path: Path) -> None:
    changes = {
        "train.lafite.discriminator.kind": "projected",
        "train.lafite.losses.r1_gamma": 0.0,
        "train.lafite.losses.discriminator_contrastive_weight": 0.0,
    }
    small, large = (
        build_lafite_networks(
            params_with({**SMALL, **changes, "train.resolution_px": side}).train, TEXT_DIM, [5, 7]
        )
        for side in (8, 16)
    )
    with torch.no_grad():
        for parameter in small.discriminator.parameters():
            parameter.add_(1.0)
    load_initial_weights(large, _save(tmp_path / "bundle", small), CLIP)
    wanted = small.discriminator.state_dict()
    assert large.discriminator.state_dict().keys() == wanted.keys()
    for name, tensor in large.discriminator.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name])


def test_average_starts_as_the_generator_does(tmp_path: Path) -> None:
    large = _build(16, seed=1)
    load_initial_weights(large, _save(tmp_path / "bundle", _build(8)), CLIP)
    for name, tensor in large.generator.state_dict().items():
        assert torch.equal(tensor, large.generator_ema.state_dict()[name])


def test_larger_generator_does_not_shrink(tmp_path: Path) -> None:
    folder = _save(tmp_path / "bundle", _build(16))
    with pytest.raises(CheckpointError, match="resolution_px = 16, train asks for 8"):
        load_initial_weights(_build(8), folder, CLIP)


def test_other_text_paths_are_refused(tmp_path: Path) -> None:
    folder = _save(tmp_path / "bundle", _build(8))
    with pytest.raises(
        CheckpointError, match=r"text_learning_rate_multiplier = 1.0, train asks for 0.5"
    ):
        load_initial_weights(_build(16, text_learning_rate_multiplier=0.5), folder, CLIP)
