"""How GALIP is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipgan.clip.encoder import ClipEncoder
from clipgan.config import TrainConfig
from clipgan.families.galip.networks.vit_features import build_vit_tower
from clipgan.families.galip.training.start import (
    GalipNetworks,
    build_galip_networks,
    load_galip_weights,
)
from clipgan.families.galip.training.step import GalipStep
from clipgan.models.bundle import BundleInfo
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import Processes
from clipgan.training.family import TrainingSpec


def _build_networks(config: TrainConfig, clip: ClipEncoder) -> GalipNetworks:
    tower = build_vit_tower(clip)
    return build_galip_networks(
        config.galip, tower, resolution_px=config.resolution_px, seed=config.seed
    )


def _load_initial_weights(
    config: TrainConfig, networks: GalipNetworks, folder: Path, clip: Mapping[str, str]
) -> BundleInfo:
    del config
    return load_galip_weights(networks, folder, clip)


def _build_step(
    config: TrainConfig, networks: GalipNetworks, conditions: Conditions, processes: Processes
) -> GalipStep:
    return GalipStep(
        networks,
        build_vit_tower(conditions.clip),
        config,
        means=conditions.means,
        mapper=conditions.mapper,
        processes=processes,
    )


SPEC = TrainingSpec(_build_networks, _load_initial_weights, _build_step)
