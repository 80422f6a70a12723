"""The metrics, one file each; importing this package registers them, in the order of the tables."""

from __future__ import annotations

from clipgan.evaluation.metrics import (
    caption_diversity,  # noqa: F401
    clip_score,  # noqa: F401
    concept_accuracy,  # noqa: F401
    frechet_distance,  # noqa: F401
    inception_score,  # noqa: F401
    kernel_distances,  # noqa: F401
    memorised_share,  # noqa: F401
    object_accuracy,  # noqa: F401
    path_length,  # noqa: F401
    prdc,  # noqa: F401
    r_precision,  # noqa: F401
)
