"""LAFITE's networks: with random weights, or those of a bundle, on their device."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.devices import DTYPES
from clipgan.errors import CheckpointError
from clipgan.families.lafite.config import LafiteConfig
from clipgan.families.lafite.networks import LafiteDiscriminator, LafiteGenerator
from clipgan.models.bundle import BundleInfo
from clipgan.training.fine_tuning import Networks, check_architecture, load_start
from clipgan.training.random_streams import derive_seed

logger = logging.getLogger(__name__)

LafiteNetworks = Networks[LafiteGenerator, LafiteDiscriminator]
LOGIT_FORMS = {"semantic_logit", "normalize_semantic"}
"""How the discriminator's outputs are put together; its weights serve every form."""


def build_lafite_networks(config: TrainConfig, text_dim: int) -> LafiteNetworks:
    """LAFITE's networks with random weights, a function of ``train.seed`` alone, on the CPU."""
    lafite: LafiteConfig = config.lafite
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        generator = LafiteGenerator(
            resolution_px=config.resolution_px,
            text_dim=text_dim,
            **lafite.generator.model_dump(),
        )
        discriminator = LafiteDiscriminator(
            resolution_px=config.resolution_px,
            text_dim=text_dim,
            **lafite.discriminator.model_dump(),
        )
    generator_ema = copy.deepcopy(generator).eval().requires_grad_(False)
    return Networks(generator, discriminator, generator_ema)


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
            "%s: %d px blocks taken over, those up to %d px and the discriminator start anew",
            folder,
            bundle.info.resolution_px,
            networks.generator.resolution_px,
        )
    elif bundle.discriminator is not None:
        check_architecture(
            folder,
            "discriminator",
            bundle.discriminator.architecture,
            networks.discriminator.architecture,
            ignored=LOGIT_FORMS,
        )
        networks.discriminator.load_state_dict(bundle.discriminator.state_dict())
    return bundle.info


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
        learning.num_reduced_resolutions = config.lafite.reduced_precision_resolutions
