"""Results of measuring one generator: values, worst captions and nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from clipgan.evaluation.metrics.inputs import TrainingInputs
from clipgan.evaluation.metrics.memorised_share import find_nearest
from clipgan.evaluation.report.pictures import NearestPair, WorstCaption
from clipgan.evaluation.study.image_store import ImageStore
from clipgan.evaluation.study.study import Study
from clipgan.metrics.values import MetricValue


@dataclass(frozen=True)
class StudyResults:
    """Metric name -> value; worst captions with the lowest score first; the closest pairs first."""

    values: dict[str, MetricValue]
    worst: tuple[WorstCaption, ...] = ()
    nearest: tuple[NearestPair, ...] = ()


def pick_worst(
    captions: Sequence[str], scores: Tensor, images: ImageStore, count: int
) -> tuple[WorstCaption, ...]:
    """Pick the ``count`` captions with the lowest scores (N,), with their images."""
    rows = [int(row) for row in scores.argsort(stable=True)[:count]]
    if not rows:
        return ()
    return tuple(
        WorstCaption(captions[row], float(scores[row]), image)
        for row, image in zip(rows, images.load(rows), strict=True)
    )


def pick_nearest(
    study: Study, inputs: TrainingInputs | None, images: ImageStore
) -> tuple[NearestPair, ...]:
    """Pick the generated images that are closest to a training image, with that image."""
    count = study.config.nearest_pictures
    if inputs is None or study.load_training is None or not count:
        return ()
    nearest = find_nearest(inputs)
    rows = [int(row) for row in nearest.closest(count)]
    training_rows = [int(nearest.rows[row]) for row in rows]
    return tuple(
        NearestPair(
            condition=study.conditions[row],
            distance=float(nearest.distances[row]),
            is_memorised=bool(nearest.memorised[row]),
            generated=generated,
            training=training,
            sample_id=study.sample_ids[training_row],
        )
        for row, training_row, generated, training in zip(
            rows, training_rows, images.load(rows), study.load_training(training_rows), strict=True
        )
    )
