"""A warm-up by drifting: images of one condition move towards several real ones and apart.

Real images that fit a condition are the one it was made from and its nearest neighbours in the
cached CLIP features. Images are compared in the maps of the training's frozen CLIP, at a few depths
and sizes, and as thumbnails; each comparison has fields of its own (see
:mod:`clipgan.losses.drifting` and ADR 0034).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipgan.clip.encoder import ClipEncoder
from clipgan.config import DriftingConfig, TrainConfig
from clipgan.data.batches import BatchLoader
from clipgan.errors import DataError
from clipgan.losses.drifting import compute_drifting_loss
from clipgan.training.clip_maps import DRIFTING_DEPTHS, ClipMaps
from clipgan.training.distributed import Processes

THUMBNAIL_PX = 8
"""Side of the reduced images that are compared as a whole."""
PLACES_PER_SIDE = 4
"""Maps are reduced to so many places along a side, each with a field of its own."""
_VARIANCE_FLOOR = 1e-6
_BLOCK_ELEMENTS = 2**25
"""Of similarities at once."""


class DriftingWarmUp:
    """Compares generated images with the real ones that fit their conditions.

    ``num_latents``: generated images of each condition in one step.
    """

    def __init__(
        self,
        maps: ClipMaps,
        load_positives: Callable[[int], Tensor],
        config: DriftingConfig,
        average: Callable[[Tensor], Tensor],
    ) -> None:
        """
        Args:
            load_positives: ``images_seen`` -> real images (B, P, 3, R, R) in [-1, 1] for the
                conditions of that step.
            average: mean over all processes.
        """
        self.num_latents = config.latents
        self._maps, self._load_positives, self._average = maps, load_positives, average
        self._temperatures: tuple[float, ...] = config.temperatures

    def compute_terms(self, fake: Tensor, images_seen: int) -> dict[str, Tensor]:
        """``drift`` and ``drifting``, the loss, means over all comparisons.

        Args:
            fake: (num_latents * B, 3, R, R) in about [-1, 1]; row i is of condition i modulo B.
        """
        positives = self._load_positives(images_seen)
        conditions, num_positives = positives.shape[:2]
        with torch.no_grad():
            real_features = self._describe(positives.flatten(0, 1))
        found = [
            compute_drifting_loss(
                # (latents * B, places, C) and (B * P, places, C), to fields of B x places.
                torch.unflatten(fakes, 0, (-1, conditions)).permute(1, 2, 0, 3),
                torch.unflatten(reals, 0, (-1, num_positives)).transpose(1, 2),
                self._temperatures,
                self._average,
            )
            for fakes, reals in zip(self._describe(fake.float()), real_features, strict=True)
        ]
        losses, drifts = zip(*found, strict=True)
        return {"drift": torch.stack(drifts).mean(), "drifting": torch.stack(losses).mean()}

    def _describe(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, R, R) -> features (N, places, C), each of other places and widths."""
        features = [F.adaptive_avg_pool2d(images, THUMBNAIL_PX).flatten(1).unsqueeze(1)]
        for found in self._maps.encode(images).maps:
            maps = found.float()
            side = min(PLACES_PER_SIDE, *maps.shape[-2:])
            places = F.adaptive_avg_pool2d(maps, side).flatten(2).transpose(1, 2)
            variance, mean = torch.var_mean(maps.flatten(2), dim=2, correction=0)
            deviation = (variance + _VARIANCE_FLOOR).sqrt()
            features += [places, mean.unsqueeze(1), deviation.unsqueeze(1)]
        return features


def build_drifting(
    config: TrainConfig, loader: BatchLoader, clip: ClipEncoder, processes: Processes
) -> DriftingWarmUp:
    """The warm-up of ``config.drifting`` on the images of ``loader``.

    Raises:
        ClipError: the CLIP's image trunk cannot be read, or has fewer depths.
        DataError: there are fewer images than positives.
    """
    settings = config.drifting
    if settings.positives > loader.data.num_images:
        raise DataError(
            f"train.drifting.positives = {settings.positives} is more than the "
            f"{loader.data.num_images} images of the training split: lower it or add images"
        )
    maps = ClipMaps(clip, settings.depths, setting=DRIFTING_DEPTHS)
    nearest = find_nearest(loader.data.image_features, settings.positives, loader.device)
    return DriftingWarmUp(
        maps,
        lambda images_seen: loader.load_neighbours(images_seen, nearest),
        settings,
        processes.average,
    )


def find_nearest(
    features: NDArray[np.float16], count: int, device: torch.device
) -> NDArray[np.int64]:
    """The rows of largest cosine to each row, (N, count): itself first, then the nearest others.

    Args:
        features: (N, D), unit norm.
        count: at most N.
    """
    rows = torch.from_numpy(features.astype(np.float32)).to(device)
    nearest = []
    block_rows = max(1, _BLOCK_ELEMENTS // len(rows))
    for block in torch.split(torch.arange(len(rows), device=device), block_rows):
        similarity = rows[block] @ rows.T
        similarity[torch.arange(len(block), device=device), block] = torch.inf
        nearest.append(similarity.topk(count, dim=1).indices.cpu())
    return torch.cat(nearest).numpy()
