"""LAFITE's networks: with random weights, or those of a bundle, on their device."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.devices import DTYPES
from clipgan.errors import CheckpointError
from clipgan.families.lafite.config import LafiteConfig
from clipgan.families.lafite.networks import (
    LafiteGenerator,
    ProjectedDiscriminator,
    build_discriminator,
)
from clipgan.models.bundle import BundleInfo
from clipgan.models.networks import Discriminator
from clipgan.random_draws import derive_seed
from clipgan.training.fine_tuning import Networks, check_architecture, load_start

logger = logging.getLogger(__name__)

LafiteNetworks = Networks[LafiteGenerator, Any]
"""The discriminator is of either kind."""
LOGIT_FORMS = {"semantic_logit", "normalize_semantic"}
"""How the discriminator's outputs are put together; its weights serve every form."""


def build_lafite_networks(
    config: TrainConfig, text_dim: int, map_channels: Sequence[int] = ()
) -> LafiteNetworks:
    """LAFITE's networks with random weights, a function of ``train.seed`` alone, on the CPU.

    ``map_channels`` are those of the maps that a projected discriminator looks at.
    """
    lafite: LafiteConfig = config.lafite
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        generator = LafiteGenerator(
            resolution_px=config.resolution_px,
            text_dim=text_dim,
            **lafite.generator.model_dump(),
        )
        discriminator = build_discriminator(
            text_dim=text_dim,
            **_describe_discriminator(config, map_channels),
        )
    generator_ema = copy.deepcopy(generator).eval().requires_grad_(False)
    return Networks(generator, discriminator, generator_ema)


def _describe_discriminator(config: TrainConfig, map_channels: Sequence[int]) -> dict[str, Any]:
    settings = config.lafite.discriminator.model_dump()
    projected, kind = settings.pop("projected"), settings.pop("kind")
    if kind == "projected":
        channels = projected["channels"]
        return {"kind": kind, "channels": channels, "map_channels": list(map_channels)}
    return {"kind": kind, "resolution_px": config.resolution_px, **settings}


def load_initial_weights(
    networks: LafiteNetworks,
    folder: Path,
    clip_fingerprint: Mapping[str, str],
    *,
    frozen_blocks: int = 0,
) -> BundleInfo:
    """Put a LAFITE bundle's generator into generator and average, its discriminator where it is.

    A generator for smaller images gives the blocks it has, as in progressive growing (Karras et al.
    2018); the blocks of the higher resolutions and the whole discriminator stay as they are.

    Args:
        frozen_blocks: so many blocks of the discriminator will not learn.

    Raises:
        CheckpointError: the bundle is damaged, was made by networks of another family or shape or
            for another CLIP, or brings no discriminator to freeze; names the key and both values.
    """
    bundle = load_start(folder, "lafite", networks.generator.text_dim, clip_fingerprint)
    stored, wanted = bundle.generator.architecture, networks.generator.architecture
    grows = stored["resolution_px"] < wanted["resolution_px"]
    check_architecture(
        folder, "generator", stored, wanted, ignored={"resolution_px"} if grows else ()
    )
    weights = grow_weights(bundle.generator.state_dict(), networks.generator.state_dict())
    networks.generator.load_state_dict(weights)
    networks.generator_ema.load_state_dict(weights)
    if frozen_blocks and (grows or bundle.discriminator is None):
        raise CheckpointError(
            f"{folder}: brings no discriminator of {networks.generator.resolution_px} px, and "
            f"train.lafite.freeze_discriminator_blocks = {frozen_blocks} would freeze random "
            "weights: set it to 0, or start from a bundle that has one"
        )
    if grows:
        logger.info(
            "%s: %d px blocks taken over, those up to %d px start anew",
            folder,
            bundle.info.resolution_px,
            networks.generator.resolution_px,
        )
    if bundle.discriminator is not None:
        _start_discriminator(networks, bundle.discriminator, folder, grows=grows)
    return bundle.info


def _start_discriminator(
    networks: LafiteNetworks, given: Discriminator, folder: Path, *, grows: bool
) -> None:
    """Heads look at CLIP's maps, so they fit images of any side; the other kind does not."""
    own = networks.discriminator
    stored, wanted = given.architecture, own.architecture
    if stored.get("kind") != wanted.get("kind"):
        logger.info("%s: its discriminator is of another kind, a new one starts", folder)
    elif grows and wanted.get("kind") != "projected":
        logger.info("%s: its discriminator is for smaller images, a new one starts", folder)
    else:
        check_architecture(folder, "discriminator", stored, wanted, ignored=LOGIT_FORMS)
        own.load_state_dict(given.state_dict())


def grow_weights(smaller: Mapping[str, Tensor], larger: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``larger`` with every weight that ``smaller`` has, both of the same architecture.

    Blocks carry the names of their sides. The text paths of all layers are stacked from the lowest
    layer up, so the smaller generator's are the first rows.
    """
    grown = {name: tensor.clone() for name, tensor in larger.items()}
    for name, tensor in smaller.items():
        stacked = name.startswith("text_path.")
        target = grown[name][: len(tensor)] if stacked else grown[name]
        target.copy_(tensor)
    return grown


def set_precision(networks: LafiteNetworks, config: TrainConfig) -> None:
    """Let the networks that learn compute in ``train.precision``.

    The average stays in float32: it is what evaluation and sampling use.
    """
    for learning in (networks.generator, networks.discriminator):
        learning.compute_dtype = DTYPES[config.precision]
        if not isinstance(learning, ProjectedDiscriminator):
            learning.num_reduced_resolutions = config.lafite.reduced_precision_resolutions
