"""What the train stage asks of a family: its networks, where they start, and its step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipgan.clip.encoder import ClipEncoder
from clipgan.config import TrainConfig
from clipgan.models.bundle import BundleInfo
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import Processes
from clipgan.training.fine_tuning import Networks


@dataclass(frozen=True)
class TrainingSpec:
    """A family's part ``training``: three functions, called in this order.

    Attributes:
        build_networks: of random weights, a function of ``train.seed`` alone, on the CPU. Raises
            ConfigError or ClipError where they do not fit the CLIP.
        load_initial_weights: lets the networks start from the bundle in a folder, whose CLIP must
            have the given fingerprint. Raises CheckpointError where it is damaged or does not fit.
        build_step: what happens to the networks, on their device by now, with every batch. A
            diagnosis needs its losses ``generator_adversarial`` and ``discriminator_adversarial``.
    """

    build_networks: Callable[[TrainConfig, ClipEncoder], Networks[Any, Any]]
    load_initial_weights: Callable[[TrainConfig, Any, Path, Mapping[str, str]], BundleInfo]
    build_step: Callable[[TrainConfig, Any, Conditions, Processes], AdversarialStep]
