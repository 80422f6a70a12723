"""``python -m bench.intervals``: how often 95 % intervals hold the truth, metric by metric.

Each experiment draws two models of one distribution on shared captions, and measures both with the
code that `clipgan evaluate` runs; features are drawn, not extracted. The truth is the mean of a
metric over all models of a setting: the average of the protocol at these counts. Two models
that are equally good must differ with p < 0.05 in 5 % of the experiments.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import clipgan.evaluation.metrics  # noqa: F401  registers every metric
from clipgan.evaluation.metrics.inputs import (
    CaptionInputs,
    SpaceInputs,
    TextInputs,
    TrainingInputs,
)
from clipgan.evaluation.metrics.metric import METRICS
from clipgan.evaluation.metrics.object_accuracy import compute_object_accuracy
from clipgan.evaluation.spaces.extraction import SpaceFeatures
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.study.recorder import Recorder
from clipgan.metrics.comparison import compare_values
from clipgan.metrics.grouping import Grouping
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
        self.rng = torch.Generator().manual_seed(seed)
        self._first = self._draw(LATENTS, DIMENSIONS) / LATENTS**0.5
        self._second = self._draw(DIMENSIONS, DIMENSIONS) / DIMENSIONS**0.5
        self._classes = 20 * self._draw(DIMENSIONS, CLASSES) / DIMENSIONS**0.5
        self._things = self._draw(LATENTS, THINGS)
        reference = self._encode(self._draw(setting.num_images, LATENTS))
        space = FeatureSpace("", "", "", "", "", lambda images: (images, None), is_clip=True)
        self._space, self._reference = space, SpaceFeatures(reference)

    def draw_pair(self, experiment: int) -> list[dict[str, MetricValue]]:
        """The values of two equally good models that share captions and groups."""
        setting = self.setting
        num_captions = setting.num_images // setting.images_per_caption
        rows = [image % num_captions for image in range(setting.num_images)]
        captions = self._draw(num_captions, LATENTS)
        grouping = Grouping(setting.num_images, setting.num_groups, experiment, sources=rows)
        concepts = self._draw(setting.num_concepts, LATENTS)
        meant = concepts + 0.5 * self._draw(*concepts.shape)
        return [
            self._measure_images(captions[rows], rows, grouping)
            | self._measure_concepts(self._encode(concepts), meant, experiment)
            for _ in range(2)
        ]

    def _measure_images(
        self, texts: Tensor, rows: list[int], grouping: Grouping
    ) -> dict[str, MetricValue]:
        latents = SHARED**0.5 * texts + (1 - SHARED) ** 0.5 * self._draw(*texts.shape)
        images = latents if self.setting.is_perfect else 0.8 * latents + torch.eye(LATENTS)[0]
        generated = SpaceFeatures(self._encode(images), self._encode(images) @ self._classes)
        recorder = Recorder(_FIELDS, CONFIDENCE)
        common: dict[str, Any] = {"space": self._space, "grouping": grouping}
        recorder.compute_all(
            SpaceInputs(generated=generated, reference=self._reference, neighbourhood=3, **common)
        )
        recorder.compute_all(self._build_texts(latents, texts, rows, common))
        recorder.compute_all(
            TrainingInputs(generated=generated, training=self._reference.plain, **common)
        )
        named, present = texts @ self._things > 3.0, latents @ self._things > 2.0
        return recorder.take() | _build_object_values(named, present, grouping)

    def _build_texts(
        self, latents: Tensor, texts: Tensor, rows: list[int], common: dict[str, Any]
    ) -> TextInputs:
        """CLIP's space is that of the latents; things are directions in it."""
        shape = (len(rows), self.setting.candidates - 1)
        others = torch.randint(max(rows) + 1, shape, generator=self.rng)
        own = torch.tensor(rows)[:, None]
        # The last text is none of the captions: it takes the place of an image's own among others.
        others = torch.where(others == own, max(rows) + 1, others)
        places = [rows.index(row) for row in range(max(rows) + 1)]
        known = normalize(torch.cat([texts[places], torch.ones(1, LATENTS)]), dim=1)
        return TextInputs(
            suffix="",
            features=normalize(latents, dim=1),
            texts=normalize(texts, dim=1),
            candidates=(known, torch.cat([own, others], dim=1)),
            **common,
        )

    def _measure_concepts(
        self, gallery: Tensor, meant: Tensor, experiment: int
    ) -> dict[str, MetricValue]:
        setting = self.setting
        latents = meant.repeat_interleave(setting.samples_per_concept, dim=0)
        recorder = Recorder(_FIELDS, CONFIDENCE)
        recorder.compute_all(
            CaptionInputs(
                space=self._space,
                grouping=Grouping(len(gallery), setting.num_groups, experiment),
                features=self._encode(latents + 0.5 * self._draw(*latents.shape)),
                samples_per_caption=setting.samples_per_concept,
                gallery=gallery,
                concepts=torch.arange(len(gallery)),
            )
        )
        return recorder.take()

    def _encode(self, latents: Tensor) -> Tensor:
        features: Tensor = torch.relu(torch.relu(latents @ self._first) @ self._second + 0.1)
        return features

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.rng)


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


def format_coverage(rows: Sequence[Coverage]) -> str:
    """A Markdown table."""
    lines = ["| metric | truth | deviation | intervals that hold it | p < 0.05 |"]
    lines.append("|---|---|---|---|---|")
    lines += [
        f"| `{row.metric}` | {row.truth:.4g} | {row.deviation:.2g} | {row.held:.1%} | "
        f"{row.false_positives:.1%} |"
        for row in rows
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


_FIELDS: dict[str, Any] = {
    "reference_split": "",
    "reference": "",
    "reference_count": 0,
    "reference_fingerprint": "",
    "generated_count": 0,
    "captions": "",
    "seed": 0,
    "resize": "",
    "truncation": 1.0,
    "name": "drawn",
}


def _build_object_values(
    named: Tensor, present: Tensor, grouping: Grouping
) -> dict[str, MetricValue]:
    """No detector looks: what is in an image is known."""
    soa = METRICS["soa"]
    return {
        f"soa{end}": build_value(
            estimate,
            Protocol(
                metric=f"soa{end}",
                extractor="drawn",
                extractor_sha256="",
                independent=True,
                **_FIELDS,
            ),
            CONFIDENCE,
            better=soa.better,
            value_range=soa.value_range,
        )
        for end, estimate in compute_object_accuracy(named, present, grouping).items()
    }


if __name__ == "__main__":
    main()
