"""What the discriminator says of images it trains on, and of images it never saw.

The first sign of a discriminator that learns its images by heart (Karras et al. 2020, arXiv
2006.06676, section 3): it still takes training images for real and no longer others of their kind.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipgan import schemas
from clipgan.data.batches import Batch, load_some_images
from clipgan.devices import upload
from clipgan.images import to_unit_range
from clipgan.random_draws import StepRandom
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.conditions import Conditions

NUM_IMAGES = 64
"""Of each split. The mean sign of 64 logits is known to 1 / sqrt(64) = 0.125."""
LEAST_IMAGES = 16
"""Held-out images below this say nothing: their mean sign is known to 0.25 only."""


class DiscriminatorProbe:
    """Mean signs of the logits of fixed images, as they are: not augmented, never mirrored.

    Conditions are those of a training step, of fixed random numbers: no stream of the training is
    touched, nor any weight or running statistic.
    """

    def __init__(
        self, step: AdversarialStep, images: Path, conditions: Conditions, batch_size: int
    ) -> None:
        """
        Args:
            images: the ingest stage's folder.
            batch_size: of the discriminator's passes, the size it trains with.

        Raises:
            DataError: the images cannot be read.
        """
        self._step, self._batch_size = step, batch_size
        side_px = step.config.resolution_px
        self._batches: dict[str, Batch] = {}
        for name, split, least in (
            ("training_logits_sign", schemas.TRAIN, 1),
            ("held_out_logits_sign", schemas.VALIDATION, LEAST_IMAGES),
        ):
            ids, pixels = load_some_images(images, split, side_px, NUM_IMAGES)
            if len(ids) >= least:
                self._batches[name] = _build_batch(ids, pixels, conditions, step.device)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """``training_logits_sign`` and, where enough is held out, ``held_out_logits_sign``, in
        [-1, 1]."""
        discriminator = self._step.discriminator
        was_training = discriminator.training
        discriminator.eval()
        try:
            return {name: self._measure_sign(batch) for name, batch in self._batches.items()}
        finally:
            discriminator.train(was_training)

    def _measure_sign(self, batch: Batch) -> float:
        random = StepRandom(self._step.device)
        random.seed("discriminator probe")
        texts = self._step.draw_conditions(batch, random)
        count = len(texts)
        # Whole batches, by repeating images: minibatch groups divide those alone.
        rows = torch.arange(-(-count // self._batch_size) * self._batch_size) % count
        logits = [
            self._step.compute_logits(batch.images[part], texts[part])
            for part in torch.split(rows.to(texts.device), self._batch_size)
        ]
        return float(torch.cat(logits)[:count].sign().mean())


def _build_batch(
    sample_ids: list[str], pixels: NDArray[np.uint8], conditions: Conditions, device: torch.device
) -> Batch:
    """The images with their features and first captions, in the space of ``conditions``."""
    table, means = conditions.table, conditions.means
    places = {sample_id: row for row, sample_id in enumerate(table.sample_ids)}
    rows = np.array([places[sample_id] for sample_id in sample_ids])
    image_features = _to_float(table.image_features[rows])
    text_features = torch.zeros_like(image_features)
    captioned = np.flatnonzero(np.diff(table.caption_offsets)[rows])
    if len(captioned):
        first = _to_float(table.text_features[table.caption_offsets[rows[captioned]]])
        text_features[captioned] = first if means is None else means.centre_texts(first)
    if means is not None:
        image_features = means.centre_images(image_features)
    return Batch(
        images=to_unit_range(upload(torch.from_numpy(pixels), device)),
        image_features=upload(image_features, device),
        text_features=upload(text_features, device),
    )


def _to_float(features: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(features.astype(np.float32))
