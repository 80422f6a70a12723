"""Checks before the first step whether a training fits on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from clipgan.artifacts import format_size, measure_size
from clipgan.config import TrainConfig
from clipgan.errors import CheckpointError
from clipgan.models.built_in import NO_WEIGHTS
from clipgan.models.networks import Discriminator, Generator
from clipgan.training.fine_tuning import Networks
from clipgan.training.power_averages import SNAPSHOTS_FOLDER, estimate_snapshots_bytes


def check_disk_space(
    networks: Networks[Generator, Discriminator],
    config: TrainConfig,
    run_folder: Path,
    *,
    keep_checkpoints: int,
    decoded_bytes: int,
) -> None:
    """Refuse a training that would fill the disk.

    At its peak there are ``keep_checkpoints`` and the one being written, the finished bundle with a
    copy of the one it started from, which is about as large, the snapshots for post-hoc EMA, and
    the decoded images. Checkpoints and snapshots of an earlier run are subtracted.

    Args:
        decoded_bytes: of images that have yet to be decoded.

    Raises:
        CheckpointError: says what is needed and what is free.
    """
    checkpoint = estimate_checkpoint_bytes(networks, config)
    checkpoints = (keep_checkpoints + 1) * checkpoint
    snapshots = estimate_snapshots_bytes(networks.generator, config)
    bundle = _sum_bytes(networks.generator_ema.state_dict().values())
    bundle += _sum_bytes(networks.discriminator.state_dict().values())
    bundle *= 1 + (config.initial_weights != NO_WEIGHTS)
    needed = max(0, checkpoints - measure_size(run_folder / "checkpoints")) + bundle + decoded_bytes
    needed += max(0, snapshots - measure_size(run_folder / SNAPSHOTS_FOLDER))
    folder = run_folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        kept = f"{format_size(snapshots)} of train.ema's snapshots, " if snapshots else ""
        raise CheckpointError(
            f"{run_folder}: the training needs {format_size(needed)} more disk space at its peak "
            f"({keep_checkpoints + 1} checkpoints of {format_size(checkpoint)}, the bundle of "
            f"{format_size(bundle)}, {kept}{format_size(decoded_bytes)} of decoded images), "
            f"{format_size(free)} are free: free some (`clipgan clean` lists what may go) or lower "
            "monitoring.keep_checkpoints"
        )


def estimate_checkpoint_bytes(
    networks: Networks[Generator, Discriminator], config: TrainConfig
) -> int:
    """Both networks and the averages, and Adam's two moments of all that is trained."""
    modules = (networks.generator, networks.discriminator)
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    states = [module.state_dict() for module in (*modules, networks.generator_ema)]
    kept = len(config.ema.snapshot_sigmas) if config.ema.snapshot_interval_images else 0
    averages = kept * _sum_bytes(networks.generator.parameters())
    return sum(_sum_bytes(state.values()) for state in states) + 2 * _sum_bytes(trained) + averages


def _sum_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
