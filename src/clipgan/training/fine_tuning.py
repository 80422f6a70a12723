"""Where a training starts from: fresh networks, or those of a generator bundle that fits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

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

GeneratorT_co = TypeVar("GeneratorT_co", bound=nn.Module, covariant=True)
DiscriminatorT_co = TypeVar("DiscriminatorT_co", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class Networks(Generic[GeneratorT_co, DiscriminatorT_co]):
    """What a training updates."""

    generator: GeneratorT_co
    discriminator: DiscriminatorT_co
    generator_ema: GeneratorT_co

    def move_to(self, device: torch.device) -> None:
        """Put all of them on ``device``."""
        for network in (self.generator, self.discriminator, self.generator_ema):
            network.to(device)


def resolve_initial_folder(initial_weights: str, family: str) -> Path | None:
    """The bundle's folder behind ``train.initial_weights``; None for ``none``.

    Models in MLflow and checkpoints are turned into bundles by
    :mod:`clipgan.stages.model_addresses`, not here.

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


def load_start(
    folder: Path, family: str, text_dim: int, clip_fingerprint: Mapping[str, str]
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
