"""How LAFITE is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipgan.clip.encoder import ClipEncoder
from clipgan.config import TrainConfig
from clipgan.families.lafite.training.projected_step import ProjectedStep
from clipgan.families.lafite.training.start import (
    LafiteNetworks,
    build_lafite_networks,
    load_initial_weights,
    set_precision,
)
from clipgan.families.lafite.training.step import LafiteStep
from clipgan.models.bundle import BundleInfo
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.clip_maps import ClipMaps
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import Processes
from clipgan.training.family import TrainingSpec


def _build_networks(config: TrainConfig, clip: ClipEncoder) -> LafiteNetworks:
    network, map_channels = config.lafite.discriminator, list[int]()
    if network.kind == "projected":
        map_channels = ClipMaps(clip, network.projected.heads).count_channels()
    networks = build_lafite_networks(config, clip.embed_dim, map_channels)
    set_precision(networks, config)
    return networks


def _load_initial_weights(
    config: TrainConfig, networks: LafiteNetworks, folder: Path, clip: Mapping[str, str]
) -> BundleInfo:
    frozen = config.lafite.freeze_discriminator_blocks
    return load_initial_weights(networks, folder, clip, frozen_blocks=frozen)


def _build_step(
    config: TrainConfig, networks: LafiteNetworks, conditions: Conditions, processes: Processes
) -> AdversarialStep:
    network, clip = config.lafite.discriminator, conditions.clip
    if network.kind == "projected":
        return ProjectedStep(
            networks,
            ClipMaps(clip, network.projected.heads, conditions.encode_images),
            config,
            mapper=conditions.mapper,
            processes=processes,
        )
    return LafiteStep(
        networks,
        conditions.encode_images,
        config,
        clip_side_px=clip.side_px,
        mapper=conditions.mapper,
        processes=processes,
    )


SPEC = TrainingSpec(_build_networks, _load_initial_weights, _build_step)
