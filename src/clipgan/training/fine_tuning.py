"""Where a training starts from: fresh networks, or those of a generator bundle that fits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clipgan.config import TrainConfig
from clipgan.errors import CheckpointError
from clipgan.models.bundle import BundleInfo, check_bundle_fits, load_bundle
from clipgan.models.lafite import LafiteDiscriminator, LafiteGenerator
from clipgan.training.random_streams import derive_seed

NO_WEIGHTS = "none"
BUILT_IN = "built-in"
BUILT_IN_FOLDER = Path(__file__).parents[1] / "assets" / "base_generator"


@dataclass(frozen=True)
class Networks:
    """What a training updates."""

    generator: LafiteGenerator
    discriminator: LafiteDiscriminator
    generator_ema: LafiteGenerator


def resolve_initial_folder(initial_weights: str) -> Path | None:
    """The bundle's folder behind ``train.initial_weights``; None for ``none``.

    Raises:
        CheckpointError: the folder does not exist.
    """
    if initial_weights == NO_WEIGHTS:
        return None
    folder = BUILT_IN_FOLDER if initial_weights == BUILT_IN else Path(initial_weights)
    if not (folder / "bundle.json").is_file():
        raise CheckpointError(
            f"train.initial_weights = {initial_weights!r}: {folder} holds no generator bundle; "
            "give the folder of one (such as data/training), or none to start from random weights"
        )
    return folder


def build_networks(config: TrainConfig, text_dim: int) -> Networks:
    """Networks with random weights, a function of ``train.seed`` alone, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        generator = LafiteGenerator(
            resolution_px=config.resolution_px,
            text_dim=text_dim,
            **config.generator.model_dump(),
        )
        discriminator = LafiteDiscriminator(
            resolution_px=config.resolution_px,
            text_dim=text_dim,
            **config.discriminator.model_dump(),
        )
    generator_ema = copy.deepcopy(generator).eval().requires_grad_(False)
    return Networks(generator, discriminator, generator_ema)


def load_initial_weights(
    networks: Networks, folder: Path, clip_fingerprint: Mapping[str, str]
) -> BundleInfo:
    """Put a bundle's generator into generator and average, and its discriminator where it has one.

    Raises:
        CheckpointError: the bundle is damaged, was made by networks of another shape or for
            another CLIP; names the key and both values.
    """
    bundle = load_bundle(folder)
    # Half-precision features differ from full ones by rounding only.
    clip = {key: value for key, value in bundle.info.clip.items() if key != "precision"}
    wanted = {key: value for key, value in clip_fingerprint.items() if key != "precision"}
    check_bundle_fits(replace(bundle.info, clip=clip), clip=wanted)
    _check_architecture(
        folder, "generator", bundle.generator.architecture, networks.generator.architecture
    )
    networks.generator.load_state_dict(bundle.generator.state_dict())
    networks.generator_ema.load_state_dict(bundle.generator.state_dict())
    if bundle.discriminator is not None:
        _check_architecture(
            folder,
            "discriminator",
            bundle.discriminator.architecture,
            networks.discriminator.architecture,
        )
        networks.discriminator.load_state_dict(bundle.discriminator.state_dict())
    return bundle.info


def _check_architecture(
    folder: Path, network: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    for key, value in wanted.items():
        if stored.get(key) != value:
            raise CheckpointError(
                f"{folder}: its {network} has {key} = {stored.get(key)}, train asks for {value}: "
                f"set it to {stored.get(key)}, or train.initial_weights to none"
            )
