"""Averages of a generator's weights kept for post-hoc EMA, and their snapshots on disk.

Each average follows the power function of its length (:mod:`clipgan.training.power_functions`).
Snapshots are kept to the end of the training: from all of them together, the average of any other
length can be computed (:mod:`clipgan.stages.averaging_lengths`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from clipgan.artifacts import write_bytes
from clipgan.config import TrainConfig
from clipgan.errors import CheckpointError
from clipgan.models.networks import Generator
from clipgan.training.power_functions import compute_gamma, compute_power_decay

SNAPSHOTS_FOLDER = "ema_snapshots"
"""A file ``images-<images_seen>.safetensors`` for each snapshot: the weights of each average in
fp16 as ``<sigma>/<name>``, and the generator's buffers, which are not averaged, as
``buffers/<name>``."""
BUFFERS = "buffers"
DTYPE = torch.float16


class PowerAverages:
    """The averages of one training, of the lengths ``train.ema.snapshot_sigmas``.

    Args:
        generator: it is not changed.
        config: section ``train``.
        folder: for the snapshots, one every ``train.ema.snapshot_interval_images`` and one of the
            last step; None: none is written.
    """

    def __init__(self, generator: Generator, config: TrainConfig, folder: Path | None) -> None:
        self._folder, self._ema = folder, config.ema
        self._batch_size, self._total_images = config.batch_size, config.total_images
        self._weights = {
            sigma: {name: weight.detach().clone() for name, weight in generator.named_parameters()}
            for sigma in config.ema.snapshot_sigmas
        }

    @torch.no_grad()
    def update(self, generator: Generator, images_seen: int) -> None:
        """Take in the weights after the step at ``images_seen``; write a snapshot where one is due.

        Raises:
            CheckpointError: the disk is full, or a weight is too large for fp16.
        """
        after = images_seen + self._batch_size
        fresh = [weight.detach() for weight in generator.parameters()]
        for sigma, weights in self._weights.items():
            decay = compute_power_decay(after, self._batch_size, compute_gamma(sigma))
            torch._foreach_lerp_(list(weights.values()), fresh, 1.0 - decay)
        interval = self._ema.snapshot_interval_images
        due = after // interval > images_seen // interval or after >= self._total_images
        if due and self._folder is not None:
            self._write(self._folder / f"images-{after:012d}.safetensors", generator)

    def capture_state(self) -> dict[str, Tensor]:
        """The averages, ``<sigma>/<name>`` -> tensor."""
        return {
            f"{sigma}/{name}": weight
            for sigma, weights in self._weights.items()
            for name, weight in weights.items()
        }

    def restore_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Undo of :meth:`capture_state`."""
        for key, weight in self.capture_state().items():
            weight.copy_(tensors[key])

    def _write(self, path: Path, generator: Generator) -> None:
        tensors = {}
        for key, weight in self.capture_state().items():
            tensors[key] = weight.to("cpu", DTYPE)
            if not torch.isfinite(tensors[key]).all():
                raise CheckpointError(
                    f"{path}: weight {key} is too large for fp16: lower the learning rates, or set "
                    "train.ema.snapshot_interval_images to 0"
                )
        learned = dict(generator.named_parameters())
        for name, buffer in generator.state_dict().items():
            if name not in learned:
                tensors[f"{BUFFERS}/{name}"] = buffer.detach().cpu()
        try:
            write_bytes(path, safetensors.torch.save(tensors))
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be written ({error.strerror or error}); the checkpoints are "
                "intact: free disk space and run the same command again"
            ) from error


def estimate_snapshots_bytes(generator: Generator, config: TrainConfig) -> int:
    """What all snapshots of a training take on the disk, without those of buffers."""
    interval, lengths = config.ema.snapshot_interval_images, len(config.ema.snapshot_sigmas)
    if not interval:
        return 0
    count = -(-config.total_images // max(interval, config.batch_size))
    weights = sum(weight.numel() for weight in generator.parameters())
    return count * lengths * weights * DTYPE.itemsize
