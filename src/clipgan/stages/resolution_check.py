"""Resolutions of ingest, training and initial weights, compared before any stage starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from clipgan.config import Params, TrainConfig
from clipgan.errors import ConfigError, RegistryError
from clipgan.models.addresses import BUNDLE_FILE, CHECKPOINT_FILE, find_folder
from clipgan.tracking.mlflow_store import resolve_tracking_uri


def check_resolutions(params: Params, root: Path) -> None:
    """Refuse sizes that do not fit each other, which training would refuse hours later.

    Only the description of the initial weights is read. A missing or damaged folder, and a
    registered model that is not available now, are left to the stage that needs them.

    Args:
        root: folder of the project, to which other folders are relative.

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
    folder = find_folder(config.initial_weights, config.family)
    if folder is None:
        stored = _ask_registry(config.initial_weights, root)
    else:
        stored = _read_resolution(root / folder)
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


def _ask_registry(address: str, root: Path) -> int | None:
    from clipgan.tracking.download import download_bundle_info
    from clipgan.tracking.sender import short_requests

    uri = resolve_tracking_uri(root, os.environ)
    with TemporaryDirectory(prefix="clipgan-model-") as scratch, short_requests():
        try:
            info = download_bundle_info(address, tracking_uri=uri, target=Path(scratch))
        except RegistryError:
            return None  # the stages `settings` and `train` will say so
        return _read_resolution(info.parent)


def _read_resolution(folder: Path) -> int | None:
    bundle, checkpoint = folder / BUNDLE_FILE, folder / CHECKPOINT_FILE
    try:
        tree = json.loads((bundle if bundle.is_file() else checkpoint).read_text(encoding="utf-8"))
        return int((tree if bundle.is_file() else tree["subject"])["resolution_px"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no start, or a folder that train refuses
