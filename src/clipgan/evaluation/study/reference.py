"""The real images, captions and concepts that a generator is compared with, chosen by seed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipgan.data.batches import build_image_cache
from clipgan.data.shards import iterate_tables, load_manifest
from clipgan.errors import EvaluationError
from clipgan.evaluation.study.protocols import EvaluationProtocol
from clipgan.schemas import CAPTIONS, CONCEPT, SAMPLE_ID, STYLE

CAPTION_CHOICE = "of each image one random caption, images taken in turn"
NO_CAPTIONS_CHOICE = "none: CLIP image features of the reference images, taken in turn"
REFERENCE_STREAM = 0
GALLERY_STREAM = 1
"""Second words of the random seed, which keep the choices independent of each other."""


@dataclass(frozen=True)
class ReferenceIndex:
    """The rows of one split without their images, in the order of the shards."""

    images_dir: Path
    fingerprint: str
    split: str
    sample_ids: list[str]
    concepts: list[str]
    styles: list[str]
    captions: list[list[str]]

    def captions_of_concepts(self) -> dict[str, list[str]]:
        """Concept -> its different captions; concepts without captions are absent."""
        captions: dict[str, dict[str, None]] = {}
        for concept, texts in zip(self.concepts, self.captions, strict=True):
            if texts:
                captions.setdefault(concept, {}).update(dict.fromkeys(texts))
        return {concept: list(texts) for concept, texts in captions.items()}


@dataclass(frozen=True)
class ReferenceRows:
    """Rows of the reference images, and for each image to generate a condition with its row.

    ``conditions`` are captions. Where the split has none, they are sample ids, and the CLIP
    features of these images take the place of text features, as in LAFITE's language-free training.
    """

    image_rows: list[int]
    conditions: list[str]
    condition_rows: list[int]
    has_captions: bool


@dataclass(frozen=True)
class ConceptGallery:
    """One real image a concept, its name, and what else there is of the same concepts.

    Attributes:
        prompts: the names: the first caption of each image, without the name of its look where the
            concept has such a caption.
        others: style -> (place in the gallery, row) of every concept of the gallery that has
            another image in it; the gallery's own style is one of them.
        looks: rows of the concepts that come in every style, one a style; empty where there is one.
    """

    rows: list[int]
    prompts: list[str]
    style: str
    others: dict[str, list[tuple[int, int]]]
    looks: list[list[int]]


def load_reference_index(images_dir: Path, split: str) -> ReferenceIndex:
    """Read names and captions of ``train``, ``validation`` or ``all``.

    Raises:
        DataError: the image shards are missing or damaged.
        EvaluationError: the split has no image.
    """
    manifest = load_manifest(images_dir)
    columns: dict[str, list[object]] = {SAMPLE_ID: [], CONCEPT: [], STYLE: [], CAPTIONS: []}
    for table in iterate_tables(images_dir, list(columns), None if split == "all" else split):
        for name, values in columns.items():
            values.extend(table.column(name).to_pylist())
    if not columns[SAMPLE_ID]:
        raise EvaluationError(
            f"evaluate.reference_split = {split!r} has no image in {images_dir}: "
            "use train, or raise ingest.validation_fraction"
        )
    return ReferenceIndex(
        images_dir,
        manifest.fingerprint,
        split,
        [str(value) for value in columns[SAMPLE_ID]],
        [str(value) for value in columns[CONCEPT]],
        [str(value) for value in columns[STYLE]],
        [list(map(str, value)) for value in columns[CAPTIONS]],  # type: ignore[call-overload]
    )


@contextmanager
def open_reference_images(
    index: ReferenceIndex, rows: Sequence[int], resolution_px: int
) -> Iterator[NDArray[np.uint8]]:
    """Open the stored images of ``rows`` (each once), reduced as for training and not augmented:
    (len(rows), 3, resolution_px, resolution_px), mapped from a file that the block deletes.

    Raises:
        DataError: images are stored smaller than ``resolution_px``, or a shard is damaged.
    """
    sample_ids = [index.sample_ids[row] for row in rows]
    # `clipgan clean` removes the folders whose process no longer exists.
    with tempfile.TemporaryDirectory(prefix=f"clipgan-{os.getpid()}-") as folder:
        yield build_image_cache(index.images_dir, sample_ids, resolution_px, Path(folder))


def load_reference_images(index: ReferenceIndex, rows: Sequence[int], resolution_px: int) -> Tensor:
    """Read the images of :func:`open_reference_images` into a tensor."""
    with open_reference_images(index, rows, resolution_px) as mapped:
        return torch.from_numpy(np.array(mapped))


def choose_reference(index: ReferenceIndex, num_generated: int, seed: int) -> ReferenceRows:
    """Choose ``num_generated`` conditions, and the images they belong to as the reference.

    Images are shuffled and the first ``num_generated`` taken (all, where the split is smaller).
    Captions come from them in turn, so a small split uses several captions of an image.
    """
    rng = np.random.default_rng([seed, REFERENCE_STREAM])
    shuffled = [int(row) for row in rng.permutation(len(index.sample_ids))]
    image_rows = shuffled[:num_generated]
    captioned = [row for row in image_rows if index.captions[row]]
    captioned = captioned or [row for row in shuffled if index.captions[row]][:num_generated]
    rows = list(islice(cycle(captioned or image_rows), num_generated))
    if not captioned:
        return ReferenceRows(image_rows, [index.sample_ids[row] for row in rows], rows, False)
    captions = []
    for row in rows:
        texts = index.captions[row]
        captions.append(texts[int(rng.integers(len(texts)))])
    return ReferenceRows(image_rows, captions, rows, True)


def choose_for_protocol(
    reference: ReferenceIndex, captions: ReferenceIndex, protocol: EvaluationProtocol
) -> ReferenceRows:
    """Choose for a protocol rows of ``reference``, and conditions with their rows of ``captions``.

    Raises:
        EvaluationError: the captions are of another split than the images they should belong to,
            or a strict protocol asks for more images than a split has.
    """
    if protocol.reference == "captioned" and reference.split != captions.split:
        raise EvaluationError(
            f"protocol {protocol.name}: captions of split {captions.split!r} do not belong to "
            f"reference images of split {reference.split!r}: set captions_split and "
            "reference_split to one split, or reference to whole"
        )
    num_captioned = sum(1 for texts in captions.captions if texts)
    num_generated = protocol.num_generated or num_captioned or len(captions.sample_ids)
    if protocol.is_strict and num_captioned < num_generated:
        raise EvaluationError(
            f"protocol {protocol.name} asks for {num_generated:,} captioned images of split "
            f"{captions.split!r}, there are {num_captioned:,}: use another protocol, or one based "
            "on it in evaluate.custom_protocols"
        )
    chosen = choose_reference(captions, num_generated, protocol.seed)
    if protocol.reference == "whole":
        rows = list(range(len(reference.sample_ids)))
    else:
        rows = chosen.image_rows
    return replace(chosen, image_rows=rows)


def choose_gallery(index: ReferenceIndex, num_concepts: int, seed: int) -> ConceptGallery:
    """Choose concepts by seed, and of each the plainest image in the first style of the shards.

    The plainest image has the shortest first caption: "waving hand" comes before "waving hand: dark
    skin tone".

    Raises:
        EvaluationError: the split has fewer concepts in that style.
    """
    captioned = [row for row, texts in enumerate(index.captions) if texts]
    styles = list(dict.fromkeys(index.styles[row] for row in captioned))
    style = styles[0] if styles else ""
    rows_of: dict[tuple[str, str], list[int]] = {}
    for row in sorted(captioned, key=lambda row: len(index.captions[row][0])):
        rows_of.setdefault((index.styles[row], index.concepts[row]), []).append(row)
    concepts = [concept for drawn, concept in rows_of if drawn == style]
    if len(concepts) < num_concepts:
        raise EvaluationError(
            f"evaluate.num_concepts = {num_concepts} is above the {len(concepts)} captioned "
            f"concepts of the reference split: set it to {len(concepts)} or less"
        )
    rng = np.random.default_rng([seed, GALLERY_STREAM])
    chosen = [concepts[i] for i in rng.choice(len(concepts), size=num_concepts, replace=False)]
    others = {
        other: [
            (place, rows_of[other, concept][other == style])
            for place, concept in enumerate(chosen)
            if len(rows_of.get((other, concept), ())) > (other == style)
        ]
        for other in styles
    }
    in_all = [concept for concept in chosen if all((other, concept) in rows_of for other in styles)]
    return ConceptGallery(
        rows=[rows_of[style, concept][0] for concept in chosen],
        prompts=[
            _name_plainly(
                [
                    index.captions[row][0]
                    for other in styles
                    for row in rows_of.get((other, concept), ())
                ]
            )
            for concept in chosen
        ],
        style=style,
        others={other: pairs for other, pairs in others.items() if pairs},
        looks=[[rows_of[other, concept][0] for other in styles] for concept in in_all]
        if len(styles) > 1
        else [],
    )


def _name_plainly(captions: Sequence[str]) -> str:
    """The first of a concept's captions, or what it says before the name of a look: "red apple" for
    "red apple, line drawing" where that is a caption too."""
    first = captions[0]
    shorter = [caption for caption in captions if first.startswith(f"{caption}, ")]
    return min(shorter, key=len, default=first)
