"""Stored CLIP features, looked up by caption or by sample id, and as a generator takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from clipgan.clip.feature_store import FeatureTable
from clipgan.errors import FeatureStoreError
from clipgan.models.bundle import GeneratorBundle, TextEncoder

FindConditions = Callable[[Sequence[str]], Tensor]
"""Captions or sample ids -> (N, D), as one generator takes them."""


class StoredFeatures:
    """Features as training used them, of captions or of images by sample id.

    Args:
        prompts: further texts; those that are captions have the captions' features.
        encode_texts: texts -> (N, D) float32, unit norm, for the other prompts.
    """

    def __init__(
        self,
        table: FeatureTable,
        prompts: Sequence[str] = (),
        encode_texts: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        captions = dict.fromkeys(table.captions)
        added = [prompt for prompt in dict.fromkeys(prompts) if prompt not in captions]
        self._captions = _number([*table.captions, *added])
        self._images = _number(table.sample_ids)
        self._image_features, self._text_features = table.image_features, table.text_features
        if added and encode_texts is not None:
            features = encode_texts(added).cpu().numpy().astype(table.text_features.dtype)
            self._text_features = np.concatenate([table.text_features, features])

    def are_captions(self, conditions: Sequence[str]) -> bool:
        """Whether all are captions that have a feature, rather than sample ids."""
        return all(name in self._captions for name in conditions)

    def find(self, conditions: Sequence[str]) -> Tensor:
        """All captions, or all sample ids -> (N, D) float32, unit norm.

        Raises:
            FeatureStoreError: names a condition that has no feature.
        """
        if self.are_captions(conditions):
            rows, stored = self._captions, self._text_features
        elif all(name in self._images for name in conditions):
            rows, stored = self._images, self._image_features
        else:
            unknown = next(name for name in conditions if name not in self._captions)
            raise FeatureStoreError(
                f"{unknown!r} has no feature: run `clipgan stage features` again"
            )
        features = stored[[rows[name] for name in conditions]]
        return torch.from_numpy(features.astype(np.float32))


def find_stored_conditions(
    bundle: GeneratorBundle, stored: StoredFeatures, clip: TextEncoder
) -> FindConditions:
    """Find stored features of captions or sample ids, prepared as the generator takes them."""

    def find(conditions: Sequence[str]) -> Tensor:
        if bundle.takes_raw_texts and stored.are_captions(conditions):
            # Stored features are of unit length.
            return bundle.encode_texts(clip, conditions)
        features = stored.find(conditions)
        if stored.are_captions(conditions):
            return bundle.prepare_texts(features)
        return bundle.prepare_images(features)

    return find


def _number(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}
