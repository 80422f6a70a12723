"""The values of an evaluation in words, for readers who do not know the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipgan.errors import EvaluationError
from clipgan.metrics.comparison import (
    BETTER,
    NO_DIFFERENCE,
    REAL,
    WORSE,
    ModelComparison,
    compare_values,
)
from clipgan.metrics.evaluations import INITIAL
from clipgan.metrics.values import MetricValue

Values = Mapping[str, MetricValue]

LOW_RECALL = 0.01
"""Recall below which not one in a hundred real images has a generated image near it: the generator
draws a small part of what the images show, or nothing like them."""

LOW_DIVERSITY = 0.015
"""Mean cosine distance of the images of one caption, below which they are almost the same. In
docs/experiments/galip.json, the only trainings that had collapsed have 0.007 and 0.010, all others
0.025 or more."""


def summarise(
    values: Mapping[str, Values], comparisons: Sequence[ModelComparison]
) -> tuple[str, ...]:
    """Write sentences, the most important first.

    Args:
        values: model (and ``real``) -> metric -> value.
        comparisons: of the models with a baseline; empty where there is one model.
    """
    models = {name: metrics for name, metrics in values.items() if name != REAL}
    return (
        *_describe_changes(comparisons),
        *_describe_variety(models),
        *_describe_diversity(models, values.get(REAL, {})),
        *_describe_concepts(models, values.get(REAL, {})),
        *_describe_clip(models, values.get(REAL, {})),
    )


def _describe_changes(comparisons: Sequence[ModelComparison]) -> list[str]:
    sentences = []
    for model in dict.fromkeys(comparison.model for comparison in comparisons):
        verdicts = {c.metric: c.verdict for c in comparisons if c.model == model}
        names = {
            verdict: [metric for metric, said in verdicts.items() if said == verdict]
            for verdict in (BETTER, WORSE, NO_DIFFERENCE)
        }
        told = [f"{verdict} in {', '.join(names[verdict])}" for verdict in (BETTER, WORSE)
                if names[verdict]]  # fmt: skip
        if same := names[NO_DIFFERENCE]:
            rest = f"in the other {len(same)}" if told else f"in any of {len(same)} metrics"
            told.append(f"{NO_DIFFERENCE} {rest}")
        if told:
            baseline = comparisons[0].baseline
            sentences.append(f"{model} against {baseline}, paired: {'; '.join(told)}.")
    return sentences


def _describe_variety(models: Mapping[str, Values]) -> list[str]:
    sentences = []
    for name in dict.fromkeys(name for values in models.values() for name in values):
        kind = name.rpartition("/")[2]
        numbers = {model: values[name].value for model, values in models.items() if name in values}
        if kind.startswith("recall") and (low := _list_below(numbers, LOW_RECALL)):
            sentences.append(
                f"No variety: {name} is {low}, so hardly one of the real images has a generated "
                "one near it. Train longer (train.total_images), and see docs/tuning.md."
            )
        if kind.startswith("caption_diversity") and (low := _list_below(numbers, LOW_DIVERSITY)):
            sentences.append(
                f"No variety: {name} is {low}, so a caption gives one picture whatever the seed. "
                "See 'lost variety' in docs/tuning.md."
            )
    return sentences


def _describe_diversity(models: Mapping[str, Values], real: Values) -> list[str]:
    """A distance has no scale of its own: how far real images of one concept are from each other
    is what variety could be."""
    sentences = []
    for name, value in real.items():
        if not name.rpartition("/")[2].startswith("caption_diversity") or value.value <= 0:
            continue
        told = [
            f"{values[name].value:.2g} of {value.value:.2g}, "
            f"{values[name].value / value.value:.0%} ({model})"
            for model, values in models.items()
            if name in values
        ]
        if told:
            looks = value.protocol.settings["samples_per_caption"]
            sentences.append(
                f"Variety beside that of real images of one concept in {looks} looks, by {name}: "
                f"{'; '.join(told)}."
            )
    return sentences


def _describe_concepts(models: Mapping[str, Values], real: Values) -> list[str]:
    """Concept accuracy between what guessing gives and what other real images reach."""
    sentences = []
    for name in dict.fromkeys(name for values in models.values() for name in values):
        found = {model: values[name] for model, values in models.items() if name in values}
        concepts = next(iter(found.values())).protocol.settings.get("concepts")
        if name.rpartition("/")[2] != "concept_accuracy" or not concepts:
            continue
        told = ", ".join(f"{value.value:.2g} ({model})" for model, value in found.items())
        ceilings = [
            f"{value.value:.2g} (real images in look {ceiling.removeprefix(f'{name}_ceiling_')})"
            for ceiling, value in real.items()
            if ceiling.startswith(f"{name}_ceiling_")
        ]
        beside = [f"chance {1 / concepts:.2g}", *(f"ceiling {text}" for text in ceilings)]
        sentences.append(f"The right concept, by {name}: {told}; {', '.join(beside)}.")
    return sentences


def _list_below(numbers: Mapping[str, float], limit: float) -> str:
    """List the models below the limit, such as ``0.002 (trained), 0 (initial)``."""
    low = {model: number for model, number in numbers.items() if number < limit}
    return ", ".join(f"{number:.2g} ({model})" for model, number in low.items())


def _describe_clip(models: Mapping[str, Values], real: Values) -> list[str]:
    """Doubt a CLIP by which real images fit their captions no better than generated ones do.

    Those of the start do not count: what it draws may be of another kind, which this CLIP knows
    better than the images at hand.
    """
    models = {model: values for model, values in models.items() if model != INITIAL}
    sentences = []
    for name, value in real.items():
        if not name.rpartition("/")[2].startswith(("r_precision", "clip_score")):
            continue
        key = "evaluate.judge_clip_model" if value.protocol.independent else "features.clip_model"
        clip = (value.protocol.clip or {}).get("model", value.protocol.extractor)
        candidates = value.protocol.settings.get("candidates")
        above = [model for model, values in models.items() if _is_above(values.get(name), value)]
        if candidates and value.interval and value.interval.low <= 1 / candidates:
            shown = f"no better than by chance ({value.value:.2g}, chance {1 / candidates:.2g})"
        elif above:
            shown = f"worse ({value.value:.3g}) than the images of {above[0]} do"
            shown += f" ({models[above[0]][name].value:.3g})"
        else:
            continue
        sentences.append(
            f"Real images fit their captions {shown}, by {name}. The CLIP {clip} does not "
            "understand your images: its scores mean little here, choose another "
            f"({key})."
        )
    return sentences


def _is_above(value: MetricValue | None, real: MetricValue) -> bool:
    """Whether the paired comparison shows a generator's value to be above that of real images."""
    if value is None:
        return False
    try:
        return compare_values(value, real).low > 0
    except EvaluationError:
        return False  # another protocol or no interval, so nothing is shown
