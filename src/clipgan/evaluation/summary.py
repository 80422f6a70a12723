"""What the values of an evaluation say, in words, for a reader who knows no metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipgan.errors import EvaluationError
from clipgan.evaluation.comparison import BETTER, NO_DIFFERENCE, WORSE, MetricComparison
from clipgan.evaluation.protocol import MetricValue, compare_values
from clipgan.evaluation.report import REAL

Values = Mapping[str, MetricValue]

LOW_RECALL = 0.01
"""Of a hundred real images not one has a generated image near it: the generator draws a corner of
what the images show, or nothing like them. Recall has no scale of its own in a feature space, and
this is its lower end."""

LOW_DIVERSITY = 0.015
"""Mean cosine distance of the images of one caption. In docs/experiments/galip.json, the only
trainings that had collapsed have 0.007 and 0.010, all others 0.025 or more."""


def summarise(
    values: Mapping[str, Values], comparisons: Sequence[MetricComparison]
) -> tuple[str, ...]:
    """Sentences, the most important first.

    Args:
        values: model (and ``real``) -> metric -> value.
        comparisons: of the models with a baseline, paired; empty where there is one model.
    """
    models = [name for name in values if name != REAL]
    found = [_describe_variety(name, values[name]) for name in models]
    found += [_describe_clip(name, values[name], values.get(REAL, {})) for name in models]
    # Each kind of sentence about a CLIP once: it is the same for all models.
    warnings = list(dict.fromkeys(sentence for part in found for sentence in part))
    return (*_describe_changes(comparisons), *warnings)


def find_verdicts(comparisons: Sequence[MetricComparison], model: str) -> dict[str, str]:
    """Metric -> better, worse, no difference shown, or not comparable."""
    return {
        found.metric: found.verdict or "not comparable"
        for found in comparisons
        if found.model == model
    }


def _describe_changes(comparisons: Sequence[MetricComparison]) -> list[str]:
    sentences = []
    for model in dict.fromkeys(found.model for found in comparisons):
        verdicts = find_verdicts(comparisons, model)
        names = {
            verdict: [metric for metric, said in verdicts.items() if said == verdict]
            for verdict in (BETTER, WORSE, NO_DIFFERENCE)
        }
        told = [f"{verdict} in {', '.join(names[verdict])}" for verdict in (BETTER, WORSE)
                if names[verdict]]  # fmt: skip
        if same := names[NO_DIFFERENCE]:
            rest = f"in {', '.join(same)}" if told else f"in any of {len(same)} metrics"
            told.append(f"{NO_DIFFERENCE} {rest}")
        if told:
            baseline = comparisons[0].baseline
            sentences.append(f"{model} against {baseline}, paired: {'; '.join(told)}.")
    return sentences


def _describe_variety(model: str, values: Values) -> list[str]:
    sentences = []
    for name, value in values.items():
        kind = name.rpartition("/")[2]
        if kind.startswith("recall") and value.value < LOW_RECALL:
            sentences.append(
                f"{model} has no variety: {name} is {value.value:.2g}, so hardly one of the real "
                "images has a generated one near it. Train longer (train.total_images) and see "
                "docs/tuning.md."
            )
        if kind.startswith("caption_diversity") and value.value < LOW_DIVERSITY:
            sentences.append(
                f"{model} draws one image a caption, whatever the seed: {name} is "
                f"{value.value:.2g}. See 'one prompt gives one image' in docs/tuning.md."
            )
    return sentences


def _describe_clip(model: str, values: Values, real: Values) -> list[str]:
    """Real images must fit their own captions better than generated ones do, where CLIP
    understands both."""
    sentences = []
    for name, value in real.items():
        kind = name.rpartition("/")[2]
        if not kind.startswith(("r_precision", "clip_score")):
            continue
        key = (
            "features.clip_model" if not value.protocol.independent else "evaluate.judge_clip_model"
        )
        clip = (value.protocol.clip or {}).get("model", value.protocol.extractor)
        candidates = value.protocol.settings.get("candidates")
        advice = (
            f"The CLIP {clip} does not understand your images: its scores mean little here, choose "
            f"another ({key})."
        )
        if candidates and value.interval and value.interval.low <= 1 / candidates:
            sentences.append(
                f"Real images find their captions no better than by chance ({name} "
                f"{value.value:.2g}, chance {1 / candidates:.2g}). {advice}"
            )
        elif _is_above(values.get(name), value):
            sentences.append(
                f"Real images ({value.value:.3g}) are below those of {model} "
                f"({values[name].value:.3g}) in {name}. {advice}"
            )
    return sentences


def _is_above(value: MetricValue | None, real: MetricValue) -> bool:
    """Whether a generator's value is above that of real images by more than chance."""
    if value is None:
        return False
    try:
        return compare_values(value, real).bounds.low > 0
    except EvaluationError:
        return False  # of another protocol, or without an interval: nothing is shown
