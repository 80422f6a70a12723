"""Concept accuracy and caption diversity: several images of each concept of a gallery."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from clipgan.evaluation.concept_accuracy import compute_hits, repeat_concepts
from clipgan.evaluation.diversity import compute_caption_diversity
from clipgan.evaluation.feature_spaces import FeatureSpace
from clipgan.evaluation.reference import ConceptGallery
from clipgan.evaluation.space_metrics import Measured
from clipgan.metrics.grouping import Grouping

GALLERY_CAPTION_CHOICE = "first caption of the gallery image of each concept"


class ConceptJudge:
    """Judges images made for the prompts of a gallery.

    Args:
        gallery_features: (C, D) of the gallery's real images in ``space``.
        num_groups, seed: of the intervals.
    """

    def __init__(
        self,
        gallery: ConceptGallery,
        gallery_features: Tensor,
        space: FeatureSpace,
        *,
        samples_per_concept: int,
        num_groups: int,
        seed: int,
    ) -> None:
        self.space, self._gallery_features = space, gallery_features
        self._samples, self._num_groups, self._seed = samples_per_concept, num_groups, seed
        self.prompts = [p for p in gallery.prompts for _ in range(samples_per_concept)]
        self._settings = {"concepts": len(gallery_features)}

    def measure(self, features: Tensor) -> dict[str, Measured]:
        """Metrics of the images of :attr:`prompts`, (C * samples, D) features."""
        concepts = repeat_concepts(len(self._gallery_features), self._samples)
        # Groups of concepts, not of images: the images of one concept are not independent.
        groups = Grouping(len(self._gallery_features), self._num_groups, self._seed)
        hits = compute_hits(features, concepts, self._gallery_features)
        accuracy = groups.average(hits.view(-1, self._samples).mean(dim=1))
        found = {"concept_accuracy": Measured(accuracy, self._settings)}
        if self._samples > 1:
            diversity = compute_caption_diversity(features, self._samples)
            settings = {**self._settings, "samples_per_caption": self._samples}
            name = self.space.name_metric("caption_diversity")
            found[name] = Measured(groups.average(diversity), settings)
        return found

    def measure_ceiling(
        self, style: str, features: Tensor, concepts: Iterable[int]
    ) -> dict[str, Measured]:
        """The accuracy of real images of another style, which show the same concepts."""
        places = torch.tensor(list(concepts), dtype=torch.int64)
        hits = compute_hits(features, places, self._gallery_features)
        groups = Grouping(len(places), self._num_groups, self._seed)
        return {f"concept_accuracy_ceiling_{style}": Measured(groups.average(hits), self._settings)}
