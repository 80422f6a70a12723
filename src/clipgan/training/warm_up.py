"""What a warm-up needs to know of the data, given to a step before its first batch."""

from __future__ import annotations

from clipgan.config import TrainConfig
from clipgan.data.batches import BatchLoader
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import Processes
from clipgan.training.drifting_warm_up import build_drifting
from clipgan.training.latent_codes import fit_training_codes


def prepare_warm_up(
    step: AdversarialStep,
    config: TrainConfig,
    loader: BatchLoader,
    conditions: Conditions,
    processes: Processes,
) -> None:
    """Fit codes to the images of ``loader`` or find their neighbours, as ``config`` asks.

    Raises:
        ClipError, DataError: see :func:`~clipgan.training.drifting_warm_up.build_drifting`.
    """
    step.latent_codes = fit_training_codes(config, loader.data, loader.device)
    if config.warm_up_images and config.warm_up_loss == "drifting":
        step.drifting = build_drifting(config, loader, conditions.clip, processes)
