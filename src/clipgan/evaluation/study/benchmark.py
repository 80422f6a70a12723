"""Real images, captions and concepts of a protocol, chosen once by seed for all generators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.r_precision import choose_distractors
from clipgan.evaluation.study.protocols import EvaluationProtocol
from clipgan.evaluation.study.reference import (
    ConceptGallery,
    ReferenceIndex,
    ReferenceRows,
    choose_for_protocol,
    choose_gallery,
    load_reference_index,
)

TRAIN = "train"
CEILING, REAL_DIVERSITY = "concept_accuracy_ceiling", "caption_diversity_real"
"""Names of values of real images, for the reasons why there are none."""
T = TypeVar("T")


@dataclass(frozen=True)
class Benchmark:
    """Rows of real images, captions and concepts, and the reasons why some are missing.

    ``reference`` holds the real images, ``captions`` the images whose captions are used, and
    ``training`` the images that a generator may have memorised (None: no search). Often they are
    the same. ``prompts`` replace captions in text metrics where the split has no captions.
    """

    protocol: EvaluationProtocol
    resolution_px: int
    reference: ReferenceIndex
    captions: ReferenceIndex
    training: ReferenceIndex | None
    choice: ReferenceRows
    candidates: list[list[str]] | None
    gallery: ConceptGallery | None
    prompts: tuple[str, ...]
    skipped: dict[str, str]

    @property
    def reference_px(self) -> int:
        """Side of the real images in comparisons; in pictures they have the generator's size."""
        return self.protocol.reference_px or self.resolution_px

    @property
    def resize(self) -> str:
        """Describe how the real images reached their size."""
        return f"reference Lanczos to {self.reference_px} px where stored larger"


def build_benchmark(
    config: EvaluateConfig, protocol: EvaluationProtocol, images_dir: Path, resolution_px: int
) -> Benchmark:
    """Choose everything that does not depend on a generator; no image is decoded.

    Where the data are not sufficient for a metric, it is skipped with the reason.

    Raises:
        DataError: the image shards are missing or damaged.
        EvaluationError: a split is empty, or has fewer images than a strict protocol asks for.
    """
    splits: set[str] = {protocol.reference_split, protocol.captions_split}
    indexes = {split: load_reference_index(images_dir, split) for split in splits}
    captions = indexes[protocol.captions_split]
    choice = choose_for_protocol(indexes[protocol.reference_split], captions, protocol)
    skipped: dict[str, str] = {}
    gallery, candidates = None, None
    prompts: tuple[str, ...] = ()
    if choice.has_captions:
        if protocol.has_concepts:
            gallery = _try(
                skipped,
                "concept_accuracy",
                lambda: choose_gallery(captions, config.num_concepts, protocol.seed),
            )
        candidates = _try(
            skipped,
            "r_precision",
            lambda: _choose_candidates(config, captions, choice, protocol.seed),
        )
    else:
        if protocol.has_concepts:
            prompts = tuple(dict.fromkeys(config.prompts))
        skipped |= _explain_no_captions(captions.split, prompts)
    if gallery is not None:
        skipped |= _explain_no_comparison(gallery)
    training = None
    if config.nearest_pictures:
        training = indexes.get(TRAIN) or _try(
            skipped, "memorised_share", lambda: load_reference_index(images_dir, TRAIN)
        )
    return Benchmark(
        protocol=protocol,
        resolution_px=resolution_px,
        reference=indexes[protocol.reference_split],
        captions=captions,
        training=training,
        choice=choice,
        candidates=candidates,
        gallery=gallery,
        prompts=prompts,
        skipped=skipped,
    )


def _explain_no_captions(split: str, prompts: tuple[str, ...]) -> dict[str, str]:
    reason = (
        f"no image of split {split!r} has a caption: lay a file of captions beside each image "
        "(cat.txt beside cat.jpg)"
    )
    if prompts:
        return dict.fromkeys(("concept_accuracy", REAL_DIVERSITY), reason)
    reason += ", or name words that fit your images in evaluate.prompts"
    return dict.fromkeys(("clip_score", "r_precision", "concept_accuracy"), reason)


def _explain_no_comparison(gallery: ConceptGallery) -> dict[str, str]:
    """Why real images give a metric no value to be held against."""
    skipped = {}
    if not gallery.others:
        skipped[CEILING] = "no concept of the gallery has a second real image"
    if len(gallery.looks) < 2:
        skipped[REAL_DIVERSITY] = (
            f"of {len(gallery.rows)} concepts {len(gallery.looks)} come in more than one look: "
            "built-in drawings do with several ingest.emoji_styles"
        )
    return skipped


def _choose_candidates(
    config: EvaluateConfig, captions: ReferenceIndex, choice: ReferenceRows, seed: int
) -> list[list[str]]:
    return choose_distractors(
        choice.conditions,
        [captions.concepts[row] for row in choice.condition_rows],
        captions.captions_of_concepts(),
        num_candidates=config.retrieval_candidates,
        seed=seed,
    )


def _try(skipped: dict[str, str], name: str, choose: Callable[[], T]) -> T | None:
    try:
        return choose()
    except EvaluationError as error:
        skipped[name] = str(error)
        return None
