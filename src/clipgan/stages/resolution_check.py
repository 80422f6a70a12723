"""Resolutions of ingest, training and initial weights, compared before any stage starts."""

from __future__ import annotations

import json
from pathlib import Path

from clipgan.config import Params, TrainConfig
from clipgan.errors import ConfigError
from clipgan.models.built_in import BUILT_IN, get_base_folder


def check_resolutions(params: Params, root: Path) -> None:
    """Refuse sizes that do not fit each other, which training would refuse hours later.

    Of the initial weights only a header is read. Registered models are not looked up, and a missing
    or damaged folder is not judged here: the train stage says what is wrong with it.

    Args:
        root: of the project, which relative folders start from.

    Raises:
        ConfigError: names both resolutions and the fix.
    """
    check_stored_size(params)
    _check_start(params.train, root)


def check_stored_size(params: Params) -> None:
    """Refuse to train on larger images than ingest stores.

    Raises:
        ConfigError: names both resolutions and the fix.
    """
    stored, trained = params.ingest.resolution_px, params.train.resolution_px
    if trained > stored:
        raise ConfigError(
            f"train.resolution_px = {trained}, but ingest.resolution_px = {stored} stores smaller "
            f"images: set ingest.resolution_px to {trained}, or train.resolution_px to {stored}"
        )


def _check_start(config: TrainConfig, root: Path) -> None:
    stored = _read_resolution(_find_folder(config.initial_weights, config.family, root))
    if stored is None or stored == config.resolution_px:
        return
    start = f"train.initial_weights = {config.initial_weights}: a generator of {stored} px"
    fix = f"set train.resolution_px to {stored}, or train.initial_weights to none"
    grows = config.section.grows
    if not grows or stored > config.resolution_px:
        allowed = "for larger images" if grows else "of another size"
        raise ConfigError(
            f"{start}, and train.resolution_px = {config.resolution_px}: {config.family} takes no "
            f"start {allowed}; {fix}"
        )
    if frozen := config.section.frozen_blocks:
        raise ConfigError(
            f"{start} grows to train.resolution_px = {config.resolution_px} with a fresh "
            f"discriminator, and train.{config.family}.freeze_discriminator_blocks = {frozen} "
            "would freeze random weights: set it to 0"
        )


def _find_folder(initial_weights: str, family: str, root: Path) -> Path:
    if initial_weights == BUILT_IN:
        return get_base_folder(family)
    return root / Path(initial_weights).expanduser()


def _read_resolution(folder: Path) -> int | None:
    bundle, checkpoint = folder / "bundle.json", folder / "checkpoint.json"
    try:
        tree = json.loads((bundle if bundle.is_file() else checkpoint).read_text(encoding="utf-8"))
        return int((tree if bundle.is_file() else tree["subject"])["resolution_px"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # "none", an address in the registry, or a folder that train refuses
