"""What the train stage asks of a paper: its networks, where they start, and its step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from clipgan.clip.encoder import ClipEncoder
from clipgan.clip.vit_taps import VitTower, build_vit_tower
from clipgan.config import TrainConfig
from clipgan.devices import DTYPES
from clipgan.models.bundle import BundleInfo
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import Processes
from clipgan.training.fine_tuning import (
    LafiteNetworks,
    Networks,
    build_networks,
    load_initial_weights,
)
from clipgan.training.galip_networks import (
    GalipNetworks,
    build_galip_networks,
    load_galip_weights,
)
from clipgan.training.galip_step import GalipStep
from clipgan.training.lafite_step import LafiteStep
from clipgan.training.state import TrainingStep


class TrainingFamily(Protocol):
    """One paper's part in a training; the methods are called in this order."""

    def build_networks(self) -> Networks[Any, Any]:
        """Networks with random weights, a function of ``train.seed`` alone, on the CPU.

        Raises:
            ConfigError: they do not fit the CLIP.
        """

    def load_initial_weights(
        self, networks: Any, folder: Path, clip_fingerprint: Mapping[str, str]
    ) -> BundleInfo:
        """Let the networks start from a bundle.

        Raises:
            CheckpointError: it is damaged or does not fit.
        """

    def place_networks(self, networks: Any, device: torch.device) -> None:
        """Move them to their device, with the precision they compute in."""

    def build_step(
        self, networks: Any, conditions: Conditions, processes: Processes
    ) -> TrainingStep:
        """What happens to the networks with every batch."""


def choose_family(config: TrainConfig, clip: ClipEncoder) -> TrainingFamily:
    """The family that ``train.family`` names, for this CLIP.

    Raises:
        ClipError: GALIP, and the CLIP has no ViT.
    """
    if config.family == "galip":
        return GalipFamily(config, build_vit_tower(clip))
    return LafiteFamily(config, clip.embed_dim)


class LafiteFamily:
    """LAFITE on StyleGAN2."""

    def __init__(self, config: TrainConfig, text_dim: int) -> None:
        self.config, self.text_dim = config, text_dim

    def build_networks(self) -> LafiteNetworks:
        """See :class:`TrainingFamily`."""
        return build_networks(self.config, self.text_dim)

    def load_initial_weights(
        self, networks: LafiteNetworks, folder: Path, clip_fingerprint: Mapping[str, str]
    ) -> BundleInfo:
        """See :class:`TrainingFamily`."""
        frozen = self.config.freeze_discriminator_blocks
        return load_initial_weights(networks, folder, clip_fingerprint, frozen_blocks=frozen)

    def place_networks(self, networks: LafiteNetworks, device: torch.device) -> None:
        """See :class:`TrainingFamily`."""
        _move(networks, device)
        # The average stays in float32: it is what evaluation and sampling use.
        for learning in (networks.generator, networks.discriminator):
            learning.compute_dtype = DTYPES[self.config.precision]
            learning.num_reduced_resolutions = self.config.reduced_precision_resolutions

    def build_step(
        self, networks: LafiteNetworks, conditions: Conditions, processes: Processes
    ) -> LafiteStep:
        """See :class:`TrainingFamily`."""
        return LafiteStep(
            networks,
            conditions.encode_images,
            self.config,
            clip_side_px=conditions.clip.side_px,
            mapper=conditions.mapper,
            processes=processes,
        )


class GalipFamily:
    """GALIP around CLIP's frozen vision transformer."""

    def __init__(self, config: TrainConfig, tower: VitTower) -> None:
        """``tower`` is on the device of the training."""
        self.config, self.tower = config, tower

    def build_networks(self) -> GalipNetworks:
        """See :class:`TrainingFamily`."""
        config = self.config
        return build_galip_networks(
            config.galip, self.tower, resolution_px=config.resolution_px, seed=config.seed
        )

    def load_initial_weights(
        self, networks: GalipNetworks, folder: Path, clip_fingerprint: Mapping[str, str]
    ) -> BundleInfo:
        """See :class:`TrainingFamily`."""
        return load_galip_weights(networks, folder, clip_fingerprint)

    def place_networks(self, networks: GalipNetworks, device: torch.device) -> None:
        """See :class:`TrainingFamily`. The step chooses the precision, by autocast."""
        _move(networks, device)

    def build_step(
        self, networks: GalipNetworks, conditions: Conditions, processes: Processes
    ) -> GalipStep:
        """See :class:`TrainingFamily`."""
        return GalipStep(
            networks,
            self.tower,
            self.config,
            means=conditions.means,
            mapper=conditions.mapper,
            processes=processes,
        )


def _move(networks: Networks[Any, Any], device: torch.device) -> None:
    for network in (networks.generator, networks.discriminator, networks.generator_ema):
        network.to(device)
