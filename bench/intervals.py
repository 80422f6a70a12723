"""``python -m bench.intervals``: how often 95 % intervals hold the truth, metric by metric.

Each experiment draws two models of one distribution on shared captions, and measures both with the
code that `clipgan evaluate` runs; features are drawn, not extracted. The truth is the mean of a
metric over all models of a setting: what the protocol gives on average at these counts. Two models
that are equally good must differ with p < 0.05 in 5 % of the experiments.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipgan.evaluation.clip_metrics import ClipJudge, TextImageModel
from clipgan.evaluation.concept_judge import ConceptJudge
from clipgan.evaluation.feature_spaces import FeatureSpace
from clipgan.evaluation.memorisation import find_nearest_training
from clipgan.evaluation.object_accuracy import compute_object_accuracy
from clipgan.evaluation.protocols import EvaluationProtocol
from clipgan.evaluation.records import find_kind
from clipgan.evaluation.reference import ConceptGallery
from clipgan.evaluation.space_metrics import SpaceFeatures, SpaceJudge
from clipgan.metrics.comparison import compare_values
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import MetricValue, Protocol, build_value

CONFIDENCE = 0.95
LATENTS, DIMENSIONS, CLASSES, THINGS = 8, 64, 20, 12
SHARED = 0.5
"""Share of the variance of a latent that its caption decides, and that both models have."""


@dataclass(frozen=True)
class Setting:
    """Counts of one evaluation, and how good its models are.

    ``images_per_caption`` above 1: captions repeat in turn; ``is_perfect``: the models draw from
    the reference's own distribution.
    """

    name: str
    num_images: int
    num_concepts: int
    samples_per_concept: int
    candidates: int
    num_groups: int = 20
    images_per_caption: int = 1
    is_perfect: bool = False


DEFAULTS = Setting("defaults", 1000, 100, 4, 100)
SMALL = Setting("small", 100, 100, 4, 20)
REPEATED = Setting("repeated", 400, 100, 4, 20, images_per_caption=4)
PERFECT = Setting("perfect", 100, 100, 4, 20, is_perfect=True)
SETTINGS = (DEFAULTS, SMALL, REPEATED, PERFECT)


@dataclass(frozen=True)
class Coverage:
    """Of one metric in one setting.

    Attributes:
        truth: mean over all models.
        deviation: of one model's value.
        held: share of the intervals that hold the truth, two an experiment.
        false_positives: share of the experiments whose equal models differ with p < 0.05.
    """

    metric: str
    truth: float
    deviation: float
    held: float
    false_positives: float


class World:
    """Fixed networks, reference and gallery of one setting, and models to draw.

    A latent (8,) becomes features (64,) by a random network of two layers; a model's latents are
    narrower than the reference's and lie elsewhere, as a generator's do that is not perfect.
    """

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.random = torch.Generator().manual_seed(seed)
        self._first = self._draw(LATENTS, DIMENSIONS) / LATENTS**0.5
        self._second = self._draw(DIMENSIONS, DIMENSIONS) / DIMENSIONS**0.5
        self._classes = 20 * self._draw(DIMENSIONS, CLASSES) / DIMENSIONS**0.5
        self._things = self._draw(LATENTS, THINGS)
        reference = self._encode(self._draw(setting.num_images, LATENTS))
        space = FeatureSpace("", "", "fid", "", "", "", lambda images: (images, None), is_clip=True)
        self._judge = SpaceJudge(space, SpaceFeatures(reference), _PROTOCOL)

    def draw_pair(self, experiment: int) -> list[dict[str, MetricValue]]:
        """The values of two equally good models that share captions and groups."""
        setting = self.setting
        num_captions = setting.num_images // setting.images_per_caption
        rows = [image % num_captions for image in range(setting.num_images)]
        captions = self._draw(num_captions, LATENTS)
        grouping = Grouping(setting.num_images, setting.num_groups, experiment, sources=rows)
        concepts = self._draw(setting.num_concepts, LATENTS)
        judge = ConceptJudge(
            ConceptGallery([], [""] * setting.num_concepts, "", {}),
            self._encode(concepts),
            self._judge.space,
            samples_per_concept=setting.samples_per_concept,
            num_groups=setting.num_groups,
            seed=experiment,
        )
        meant = concepts + 0.5 * self._draw(*concepts.shape)
        return [
            self._measure_images(captions[rows], rows, grouping)
            | self._measure_concepts(judge, meant)
            for _ in range(2)
        ]

    def _measure_images(
        self, texts: Tensor, rows: list[int], grouping: Grouping
    ) -> dict[str, MetricValue]:
        latents = SHARED**0.5 * texts + (1 - SHARED) ** 0.5 * self._draw(*texts.shape)
        images = latents if self.setting.is_perfect else 0.8 * latents + torch.eye(LATENTS)[0]
        features = self._encode(images)
        logits = self._encode(images) @ self._classes
        judge = self._judge
        found = {
            name: measured.estimate
            for name, measured in judge.measure(SpaceFeatures(features, logits), grouping).items()
        }
        found |= self._measure_texts(latents, texts, rows, grouping)
        nearest = find_nearest_training(features, judge.reference.plain)
        found["memorised_share"] = grouping.average(nearest.memorised)
        return _build_values(found)

    def _measure_texts(
        self, latents: Tensor, texts: Tensor, rows: list[int], grouping: Grouping
    ) -> dict[str, Estimate]:
        """CLIP's space is that of the latents; things are directions in it."""
        conditions = [str(row) for row in rows]
        shape = (len(rows), self.setting.candidates - 1)
        others = torch.randint(max(rows) + 1, shape, generator=self.random)
        candidates = [
            [str(row), *(str(other) if other != row else "none" for other in drawn)]
            for row, drawn in zip(rows, others.tolist(), strict=True)
        ]
        table = {str(row): texts[place] for place, row in enumerate(rows)}
        table["none"] = torch.ones(LATENTS)

        def encode(captions: Sequence[str]) -> Tensor:
            return torch.nn.functional.normalize(torch.stack([table[c] for c in captions]), dim=1)

        model = TextImageModel(self._judge.space, encode, "")
        measured, _ = ClipJudge(model, conditions, candidates).measure(latents, grouping)
        named = texts @ self._things > 3.0
        present = latents @ self._things > 2.0
        accuracy = compute_object_accuracy(named, present, grouping)
        return {
            **{name: found.estimate for name, found in measured.items()},
            "soa_c": accuracy.by_class,
            "soa_i": accuracy.by_image,
        }

    def _measure_concepts(self, judge: ConceptJudge, meant: Tensor) -> dict[str, MetricValue]:
        latents = meant.repeat_interleave(self.setting.samples_per_concept, dim=0)
        found = judge.measure(self._encode(latents + 0.5 * self._draw(*latents.shape)))
        return _build_values({name: measured.estimate for name, measured in found.items()})

    def _encode(self, latents: Tensor) -> Tensor:
        features: Tensor = torch.relu(torch.relu(latents @ self._first) @ self._second + 0.1)
        return features

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)


def measure_coverage(
    setting: Setting, num_experiments: int, seed: int = 0, advance: Callable[[], object] = int
) -> list[Coverage]:
    """All metrics in one setting; ``advance`` is called after each experiment."""
    world = World(setting, seed)
    pairs = []
    for experiment in range(num_experiments):
        pairs.append(world.draw_pair(experiment))
        advance()
    return [_summarise(name, pairs) for name in pairs[0][0]]


def format_coverage(found: Sequence[Coverage]) -> str:
    """A Markdown table."""
    lines = ["| metric | truth | deviation | intervals that hold it | p < 0.05 |"]
    lines.append("|---|---|---|---|---|")
    lines += [
        f"| `{row.metric}` | {row.truth:.4g} | {row.deviation:.2g} | {row.held:.1%} | "
        f"{row.false_positives:.1%} |"
        for row in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print one table a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--settings", nargs="+", default=[setting.name for setting in SETTINGS])
    options = parser.parse_args()
    for setting in SETTINGS:
        if setting.name in options.settings:
            print(f"\n{setting}, {options.experiments} experiments\n")
            print(format_coverage(measure_coverage(setting, options.experiments)), flush=True)


def _summarise(name: str, pairs: Sequence[Sequence[dict[str, MetricValue]]]) -> Coverage:
    values = [model[name] for pair in pairs for model in pair]
    numbers = np.array([value.value for value in values])
    truth = float(numbers.mean())
    intervals = [value.interval for value in values if value.interval is not None]
    held = [interval.low <= truth <= interval.high for interval in intervals]
    differ = [compare_values(a[name], b[name]).p_value < 1 - CONFIDENCE for a, b in pairs]
    return Coverage(name, truth, float(numbers.std()), float(np.mean(held)), float(np.mean(differ)))


_PROTOCOL = EvaluationProtocol(
    name="drawn",
    summary="",
    spaces=(),
    reference_split="all",
    reference="whole",
    captions_split="all",
    num_generated=None,
    is_strict=False,
    reference_px=None,
    is_mirrored=False,
    has_concepts=True,
    seed=0,
    truncation=1.0,
    neighbourhood=3,
    blur_radii_px=(),
)


def _build_values(estimates: dict[str, Estimate]) -> dict[str, MetricValue]:
    return {
        name: build_value(estimate, _describe(name), CONFIDENCE, **find_kind(name))
        for name, estimate in estimates.items()
    }


def _describe(metric: str) -> Protocol:
    return Protocol(
        metric=metric,
        extractor="drawn",
        extractor_sha256="",
        independent=True,
        reference_split="",
        reference="",
        reference_count=0,
        reference_fingerprint="",
        generated_count=0,
        captions="",
        seed=0,
        resize="",
        truncation=1.0,
        name="drawn",
    )


if __name__ == "__main__":
    main()
