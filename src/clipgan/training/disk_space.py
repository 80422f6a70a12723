"""Checks before the first step whether a training fits on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from clipgan.artifacts import format_size, measure_size
from clipgan.errors import CheckpointError
from clipgan.models.networks import Discriminator, Generator
from clipgan.training.fine_tuning import Networks


def check_disk_space(
    networks: Networks[Generator, Discriminator],
    run_folder: Path,
    *,
    keep_checkpoints: int,
    has_initial: bool,
    decoded_bytes: int,
) -> None:
    """Refuse a training that would fill the disk.

    At its peak there are ``keep_checkpoints`` and the one being written, the finished bundle with a
    copy of the one it started from, and the decoded images. Checkpoints of an earlier run are
    subtracted.

    Args:
        has_initial: whether the training starts from a bundle, which is about as large.
        decoded_bytes: of images that have yet to be decoded.

    Raises:
        CheckpointError: says what is needed and what is free.
    """
    checkpoint = estimate_checkpoint_bytes(networks)
    checkpoints = (keep_checkpoints + 1) * checkpoint
    bundle = _sum_bytes(networks.generator_ema.state_dict().values())
    bundle += _sum_bytes(networks.discriminator.state_dict().values())
    bundle *= 1 + has_initial
    needed = max(0, checkpoints - measure_size(run_folder / "checkpoints")) + bundle + decoded_bytes
    folder = run_folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{run_folder}: the training needs {format_size(needed)} more disk space at its peak "
            f"({keep_checkpoints + 1} checkpoints of {format_size(checkpoint)}, the bundle of "
            f"{format_size(bundle)}, {format_size(decoded_bytes)} of decoded images), "
            f"{format_size(free)} are free: free some (`clipgan clean` lists what may go) or lower "
            "monitoring.keep_checkpoints"
        )


def estimate_checkpoint_bytes(networks: Networks[Generator, Discriminator]) -> int:
    """Both networks and the average, and Adam's two moments of all that is trained."""
    modules = (networks.generator, networks.discriminator)
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    states = [module.state_dict() for module in (*modules, networks.generator_ema)]
    return sum(_sum_bytes(state.values()) for state in states) + 2 * _sum_bytes(trained)


def _sum_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
