"""Where a training starts from: fresh networks, or those of a generator bundle that fits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from clipgan.config import Family, TrainConfig
from clipgan.errors import CheckpointError
from clipgan.models.addresses import BUNDLE_FILE, describe_missing, find_folder
from clipgan.models.built_in import NO_WEIGHTS
from clipgan.models.bundle import (
    BundleInfo,
    GeneratorBundle,
    check_bundle_fits,
    load_bundle,
    load_bundle_info,
)
from clipgan.models.lafite import LafiteGenerator
from clipgan.models.lafite_discriminator import LafiteDiscriminator
from clipgan.training.random_streams import derive_seed

logger = logging.getLogger(__name__)

LOGIT_FORMS = {"semantic_logit", "normalize_semantic"}
"""How the discriminator's outputs are put together; its weights serve every form."""

GeneratorT_co = TypeVar("GeneratorT_co", bound=nn.Module, covariant=True)
DiscriminatorT_co = TypeVar("DiscriminatorT_co", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class Networks(Generic[GeneratorT_co, DiscriminatorT_co]):
    """What a training updates."""

    generator: GeneratorT_co
    discriminator: DiscriminatorT_co
    generator_ema: GeneratorT_co


LafiteNetworks = Networks[LafiteGenerator, LafiteDiscriminator]


def resolve_initial_folder(initial_weights: str, family: Family = "lafite") -> Path | None:
    """The bundle's folder behind ``train.initial_weights``; None for ``none``.

    What is in MLflow and checkpoints are no bundles yet (:mod:`clipgan.stages.model_addresses`).

    Raises:
        CheckpointError: the folder does not exist or holds no bundle.
    """
    if initial_weights == NO_WEIGHTS:
        return None
    folder = find_folder(initial_weights, family)
    if folder is None or not (folder / BUNDLE_FILE).is_file():
        raise CheckpointError(
            f"train.initial_weights = {describe_missing(initial_weights)}; none starts from random "
            "weights"
        )
    return folder


def build_networks(config: TrainConfig, text_dim: int) -> LafiteNetworks:
    """LAFITE's networks with random weights, a function of ``train.seed`` alone, on the CPU."""
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
            f"train.freeze_discriminator_blocks = {frozen_blocks} would freeze random weights: "
            "set it to 0, or start from a bundle that has one"
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


def load_start(
    folder: Path, family: Family, text_dim: int, clip_fingerprint: Mapping[str, str]
) -> GeneratorBundle:
    """A bundle of the family and the CLIP that are trained; shapes are the caller's to check.

    Args:
        text_dim: width of the features to train on.
        clip_fingerprint: of the CLIP that made them.

    Raises:
        CheckpointError: it is damaged, or of another family or CLIP; names both.
    """
    stored = load_bundle_info(folder).family
    if stored != family:
        raise CheckpointError(
            f"{folder}: holds a {stored} generator, and train.family = {family} has other "
            f"networks: set family to {stored}, or train.initial_weights to none"
        )
    bundle = load_bundle(folder)
    _check_text_dim(folder, bundle.info, bundle.generator.text_dim, text_dim)
    # Half-precision features differ from full ones by rounding only.
    clip = {key: value for key, value in bundle.info.clip.items() if key != "precision"}
    wanted = {key: value for key, value in clip_fingerprint.items() if key != "precision"}
    check_bundle_fits(replace(bundle.info, clip=clip), clip=wanted)
    return bundle


def _check_text_dim(folder: Path, info: BundleInfo, stored: int, wanted: int) -> None:
    if stored != wanted:
        model = info.clip.get("model", "another CLIP")
        raise CheckpointError(
            f"{folder}: made for CLIP features {stored} wide ({model}), features.clip_model gives "
            f"{wanted}: its weights cannot be used with them; set features.clip_model to {model} "
            "and run the features stage, or train.initial_weights to none"
        )


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


def check_architecture(
    folder: Path,
    network: str,
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    ignored: Collection[str] = (),
) -> None:
    """Refuse stored weights of another shape than ``wanted``; keys that are ``ignored`` may differ.

    Raises:
        CheckpointError: names the key and both values.
    """
    for key, value in wanted.items():
        if key not in ignored and stored.get(key) != value:
            raise CheckpointError(
                f"{folder}: its {network} has {key} = {stored.get(key)}, train asks for {value}: "
                f"set it to {stored.get(key)}, or train.initial_weights to none"
            )
