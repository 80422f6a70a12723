"""What every generator of one evaluation is measured on: chosen once, by seed, from real data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.inception import InceptionWeights, find_inception_weights
from clipgan.evaluation.reference import (
    ConceptGallery,
    ReferenceChoice,
    ReferenceIndex,
    choose_gallery,
    choose_reference,
    load_reference_images,
)
from clipgan.evaluation.retrieval import choose_distractors
from clipgan.pretrained.efficientnet_lite import NUM_FEATURES


@dataclass(frozen=True)
class Benchmark:
    """Real images (uint8, (N, 3, R, R)), captions and concepts; what could not be had, and why."""

    index: ReferenceIndex
    choice: ReferenceChoice
    resolution_px: int
    resize: str
    reference_images: Tensor
    condition_images: Tensor
    """The image each condition belongs to, one for each image to generate."""
    candidates: list[list[str]] | None
    gallery: ConceptGallery | None
    gallery_images: Tensor
    other_styles: Mapping[str, tuple[Tensor, Tensor]]
    """style -> images, and for each the place of its concept in the gallery."""
    inception: InceptionWeights | None
    skipped: dict[str, str]
    warnings: tuple[str, ...]

    def count_images(self, config: EvaluateConfig, num_generators: int) -> int:
        """Images that will be generated or judged, for the progress bar."""
        others = sum(len(images) for images, _ in self.other_styles.values())
        concepts = len(self.gallery_images) * config.samples_per_concept
        made = 2 * num_generators * (config.num_generated + concepts)
        return len(self.reference_images) + len(self.gallery_images) + others + made


def build_benchmark(config: EvaluateConfig, index: ReferenceIndex, resolution_px: int) -> Benchmark:
    """Choose and load everything that does not depend on a generator.

    A metric the data do not suffice for is skipped with its reason; the others are still computed.

    Raises:
        DataError: an image shard is damaged, or smaller images are stored.
    """
    skipped: dict[str, str] = {}
    choice = choose_reference(index, config.num_generated, config.seed)
    gallery, candidates = None, None
    if choice.has_captions:
        gallery = _try_gallery(config, index, skipped)
        candidates = _try_candidates(config, index, choice, skipped)
    else:
        for name in ("clip_score", "r_precision", "concept_accuracy"):
            skipped[name] = f"no image of split {index.split!r} has a caption"
    rows = [*choice.image_rows, *choice.condition_rows]
    other_rows: dict[str, list[tuple[int, int]]] = {}
    if gallery is not None:
        other_rows = gallery.other_styles
        rows += [*gallery.rows, *(row for pairs in other_rows.values() for _, row in pairs)]
    unique = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    images = load_reference_images(index, list(unique), resolution_px)

    def pick(wanted: list[int]) -> Tensor:
        return images[torch.tensor([unique[row] for row in wanted], dtype=torch.int64)]

    reference = pick(choice.image_rows)
    _skip_small_sets(config, min(len(reference), config.num_generated), skipped)
    if gallery is not None and not other_rows:
        skipped["concept_accuracy_ceiling"] = (
            f"all images of the gallery's concepts are in style {gallery.style!r}: add a style to "
            "ingest.emoji_styles"
        )
    return Benchmark(
        index=index,
        choice=choice,
        resolution_px=resolution_px,
        resize=f"reference Lanczos to {resolution_px} px where stored larger",
        reference_images=reference,
        condition_images=pick(choice.condition_rows),
        candidates=candidates,
        gallery=gallery,
        gallery_images=pick(gallery.rows if gallery else []),
        other_styles={
            style: (pick([row for _, row in pairs]), torch.tensor([place for place, _ in pairs]))
            for style, pairs in other_rows.items()
        },
        inception=_try_inception(config, skipped),
        skipped=skipped,
        warnings=_collect_warnings(config, len(reference)),
    )


def _try_gallery(
    config: EvaluateConfig, index: ReferenceIndex, skipped: dict[str, str]
) -> ConceptGallery | None:
    try:
        return choose_gallery(index, config.num_concepts, config.seed)
    except EvaluationError as error:
        skipped["concept_accuracy"] = str(error)
        return None


def _try_candidates(
    config: EvaluateConfig, index: ReferenceIndex, choice: ReferenceChoice, skipped: dict[str, str]
) -> list[list[str]] | None:
    try:
        return choose_distractors(
            choice.conditions,
            [index.concepts[row] for row in choice.condition_rows],
            index.captions_of_concepts(),
            num_candidates=config.retrieval_candidates,
            seed=config.seed,
        )
    except EvaluationError as error:
        skipped["r_precision"] = str(error)
        return None


def _try_inception(config: EvaluateConfig, skipped: dict[str, str]) -> InceptionWeights | None:
    if config.inception == "off":
        skipped["fid"] = "evaluate.inception is off"
        return None
    found = find_inception_weights()
    if isinstance(found, str):
        skipped["fid"] = found
        return None
    return found


def _skip_small_sets(config: EvaluateConfig, num_images: int, skipped: dict[str, str]) -> None:
    if num_images < config.kid_subset_size:
        skipped["kid_efficientnet_lite0"] = (
            f"evaluate.kid_subset_size = {config.kid_subset_size} is above the {num_images} images "
            f"of the smaller set: set it to {num_images} or less"
        )
    if num_images <= config.neighbourhood:
        for name in ("precision_efficientnet_lite0", "recall_efficientnet_lite0"):
            skipped[name] = (
                f"evaluate.neighbourhood = {config.neighbourhood} needs more images than the "
                f"{num_images} of the smaller set: lower it"
            )


def _collect_warnings(config: EvaluateConfig, num_reference: int) -> tuple[str, ...]:
    fewest = min(config.num_generated, num_reference)
    if fewest > NUM_FEATURES:
        return ()
    return (
        f"fd_efficientnet_lite0 is fitted to {fewest:,} images in {NUM_FEATURES:,} dimensions and "
        "therefore biased upwards: compare it only at the same counts, and trust "
        "kid_efficientnet_lite0, which is unbiased",
    )
