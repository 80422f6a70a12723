"""Text metrics where no image has a caption: by the prompts of ``evaluate.prompts``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.artifacts import hash_json
from clipgan.evaluation.clip_metrics import TextImageModel
from clipgan.evaluation.concept_accuracy import repeat_concepts
from clipgan.evaluation.diversity import compute_caption_diversity
from clipgan.evaluation.feature_spaces import FeatureSpace
from clipgan.evaluation.retrieval import compute_clip_scores, compute_wins
from clipgan.evaluation.space_metrics import Measured
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate


class PromptJudge:
    """Judges images made for prompts: CLIP score, R-precision among the prompts, diversity.

    Args:
        prompts: different texts.
        samples_per_prompt: images of each.
        num_groups, seed: of the intervals.

    Attributes:
        prompts: the texts, each repeated for its images.
        captions: how they were chosen, for the protocol of a value.
    """

    def __init__(
        self, prompts: Sequence[str], *, samples_per_prompt: int, num_groups: int, seed: int
    ) -> None:
        self._texts, self._samples = list(prompts), samples_per_prompt
        # Groups of prompts, not of images: the images of one prompt are not independent.
        self._groups = Grouping(len(self._texts), num_groups, seed)
        self.prompts = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
        self.captions = f"evaluate.prompts ({hash_json(self._texts)[:12]})"

    def measure_text(self, model: TextImageModel, features: Tensor) -> dict[str, Measured]:
        """Metrics by one CLIP of the images of :attr:`prompts`, (P * samples, D) features."""
        features = normalize(features, dim=1)
        texts = model.encode_texts(self._texts).float().cpu()
        own = repeat_concepts(len(self._texts), self._samples)
        scores = compute_clip_scores(features, texts[own])
        settings = {"samples_per_caption": self._samples}
        found = {f"clip_score{model.suffix}": Measured(self._average(scores), settings)}
        if len(self._texts) > 1:
            others = [[row, *(n for n in range(len(texts)) if n != row)] for row in own.tolist()]
            wins = compute_wins(features, texts, torch.tensor(others))
            settings = {**settings, "candidates": len(texts)}
            found[f"r_precision{model.suffix}"] = Measured(self._average(wins), settings)
        return found

    def measure_diversity(self, space: FeatureSpace, features: Tensor) -> dict[str, Measured]:
        """How much the images of one prompt differ in ``space``; nothing where each has one."""
        if self._samples < 2:
            return {}
        diversity = self._groups.average(compute_caption_diversity(features, self._samples))
        settings = {"samples_per_caption": self._samples}
        return {space.name_metric("caption_diversity"): Measured(diversity, settings)}

    def _average(self, values: Tensor) -> Estimate:
        return self._groups.average(values.double().view(-1, self._samples).mean(dim=1))
