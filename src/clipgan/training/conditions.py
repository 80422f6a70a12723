"""What the generator of a training is conditioned on, prepared before the first step.

The three kinds of pseudo text all add Gaussian noise: ``mapper`` passes it through a trained
network, ``centred_gaussian`` (C3) shifts every CLIP feature. The shift is applied where features
enter: to stored ones, to CLIP's features of generated images, to texts to sample. So losses and
steps do not depend on the kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipgan.clip.encoder import ClipEncoder
from clipgan.config import PseudoTextConfig, TrainConfig
from clipgan.errors import DataError
from clipgan.models.modality_gap import ModalityMeans, compute_modality_mean
from clipgan.models.noise_mapper import NoiseMapper, load_mapper
from clipgan.training.caption_budget import choose_captioned

if TYPE_CHECKING:
    from clipgan.clip.feature_store import FeatureTable


@dataclass(frozen=True)
class Conditions:
    """The features to train on, which captions count, and the space text features live in.

    ``selected`` (N,) are the rows of ``table`` to train on; ``captioned`` (N,) is true for those
    whose captions may be used; ``means`` where the modality gap is removed; ``mapper``, on the
    training's device, where it makes the pseudo text.
    """

    clip: ClipEncoder
    table: FeatureTable
    selected: NDArray[np.int64]
    captioned: NDArray[np.bool_]
    means: ModalityMeans | None
    mapper: NoiseMapper | None

    def encode_images(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] -> (N, D) float32, unit norm, in the training's space.

        Differentiable with respect to the images.
        """
        features = self.clip.encode_images(images)
        return features if self.means is None else self.means.centre_images(features)

    def encode_texts(self, captions: Sequence[str]) -> Tensor:
        """Captions -> (N, D) float32, unit norm, in the training's space."""
        features = self.clip.encode_texts(captions)
        return features if self.means is None else self.means.centre_texts(features)


def build_conditions(
    config: TrainConfig,
    table: FeatureTable,
    selected: NDArray[np.int64],
    clip: ClipEncoder,
    device: torch.device,
) -> Conditions:
    """Choose captions, compute means and load the mapper, as ``config.pseudo_text`` asks.

    Args:
        table: features of all images.
        selected: its rows of the training split.
        clip: the encoder that made them.

    Raises:
        DataError: too few images have captions.
        CheckpointError: the mapper is missing, damaged or of another CLIP.
    """
    pseudo = config.pseudo_text
    captioned = _choose_captioned(config, table, selected)
    means, mapper = None, None
    if pseudo.kind == "centred_gaussian":
        means = _compute_means(table, selected, captioned)
    elif pseudo.kind == "mapper":
        mapper = load_mapper(Path(pseudo.mapper), table.clip).to(device)
    return Conditions(clip, table, selected, captioned, means, mapper)


def uses_captions(config: PseudoTextConfig) -> bool:
    """Whether a caption has any effect: as a condition, or on the mean of the text features."""
    return config.pseudo_text_probability < 1.0 or config.kind == "centred_gaussian"


def _choose_captioned(
    config: TrainConfig, table: FeatureTable, selected: NDArray[np.int64]
) -> NDArray[np.bool_]:
    num_captions = np.diff(table.caption_offsets)[selected]
    if not uses_captions(config.pseudo_text):
        return num_captions > 0
    sample_ids = [table.sample_ids[row] for row in selected]
    fraction = config.pseudo_text.caption_fraction
    return choose_captioned(sample_ids, num_captions, fraction, config.seed)


def _compute_means(
    table: FeatureTable, selected: NDArray[np.int64], captioned: NDArray[np.bool_]
) -> ModalityMeans:
    rows = list_caption_rows(table, selected[captioned])
    if not len(rows):
        raise DataError(
            "train.pseudo_text.kind = centred_gaussian subtracts the mean of text features, but "
            "no caption may be used: raise caption_fraction, caption images, or set kind to "
            "gaussian"
        )
    return ModalityMeans(
        image=compute_modality_mean(table.image_features[selected]),
        text=compute_modality_mean(table.text_features[rows]),
    )


def list_caption_rows(table: FeatureTable, images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of ``table.text_features`` that are captions of these images, image after image."""
    offsets = table.caption_offsets
    rows = [np.arange(offsets[image], offsets[image + 1]) for image in images]
    return np.concatenate([np.empty(0, dtype=np.int64), *rows])
