"""The data that pretraining reads, in one small folder that can be copied to another machine.

It holds ``samples.parquet`` (lossless images, concepts, captions by number),
``captions.safetensors`` (pooled sentence embeddings) and ``prepared.json``, written last. Neither
the image shards nor the sentence encoder are needed then.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipgan import schemas
from clipgan.artifacts import atomic_path, write_json
from clipgan.errors import ClipError

PREPARED_FILE = "prepared.json"
SAMPLES_FILE = "samples.parquet"
CAPTIONS_FILE = "captions.safetensors"
CAPTION_NUMBERS = "caption_numbers"

_SAMPLES = pa.schema(
    [
        pa.field(schemas.SAMPLE_ID, pa.string(), nullable=False),
        pa.field(schemas.CONCEPT, pa.string(), nullable=False),
        pa.field(schemas.STYLE, pa.string(), nullable=False),
        pa.field(schemas.SPLIT, pa.string(), nullable=False),
        pa.field(CAPTION_NUMBERS, pa.list_(pa.int32()), nullable=False),
        pa.field(schemas.IMAGE, pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Sample:
    """One captioned image, decoded: pixels (S, S, 3) uint8."""

    sample_id: str
    concept: str
    style: str
    split: str
    captions: Sequence[str]
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class PretrainingData:
    """Everything in memory, on the CPU.

    ``images_uint8`` (N, 3, S, S); ``text_embeddings`` (M, E) float32, pooled and not normalised;
    ``caption_numbers[i]`` are image i's rows of it, its name first; ``concept_ids`` (N,) int64.
    """

    images_uint8: Tensor
    concept_ids: Tensor
    concepts: list[str]
    styles: list[str]
    is_train: Tensor
    caption_numbers: list[list[int]]
    captions: list[str]
    text_embeddings: Tensor
    sentence_encoder_sha256: str
    fingerprint: str


def save_prepared(
    folder: Path,
    samples: Iterable[Sample],
    *,
    embed: Callable[[list[str]], Tensor],
    sentence_encoder_sha256: str,
    fingerprint: str,
) -> None:
    """Write the folder; it counts as complete once ``prepared.json`` is there.

    Args:
        samples: images without captions are left out by the caller.
        embed: captions -> (M, E) pooled sentence embeddings.
        fingerprint: of the images and the settings that shape this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, int] = {}
    rows = [_pack(sample, numbers) for sample in samples]
    with atomic_path(folder / SAMPLES_FILE) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SAMPLES), temporary, compression="zstd")
    captions = list(numbers)
    embeddings = embed(captions).to(torch.float16).contiguous()
    with atomic_path(folder / CAPTIONS_FILE) as temporary:
        save_file({"embeddings": embeddings}, temporary)
    tree = {
        "fingerprint": fingerprint,
        "sentence_encoder_sha256": sentence_encoder_sha256,
        "captions": captions,
    }
    write_json(folder / PREPARED_FILE, tree)


def read_prepared_fingerprint(folder: Path) -> str | None:
    """Fingerprint of a complete folder, None where there is none."""
    path = folder / PREPARED_FILE
    if not path.is_file():
        return None
    fingerprint: str = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    return fingerprint


def load_prepared(folder: Path) -> PretrainingData:
    """Read the folder.

    Raises:
        ClipError: it is incomplete or damaged.
    """
    try:
        tree = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
        table = pq.read_table(folder / SAMPLES_FILE)
        embeddings = load_file(folder / CAPTIONS_FILE)["embeddings"].float()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ClipError(
            f"{folder}: incomplete or damaged ({reason}); delete it and run again"
        ) from None
    columns = {name: table[name].to_pylist() for name in table.column_names}
    concepts = sorted(set(columns[schemas.CONCEPT]))
    ids = {concept: number for number, concept in enumerate(concepts)}
    images = np.stack(list(_unpack(columns[schemas.IMAGE])))
    return PretrainingData(
        images_uint8=torch.from_numpy(images),
        concept_ids=torch.tensor([ids[concept] for concept in columns[schemas.CONCEPT]]),
        concepts=concepts,
        styles=columns[schemas.STYLE],
        is_train=torch.tensor([split == schemas.TRAIN for split in columns[schemas.SPLIT]]),
        caption_numbers=columns[CAPTION_NUMBERS],
        captions=tree["captions"],
        text_embeddings=embeddings,
        sentence_encoder_sha256=tree["sentence_encoder_sha256"],
        fingerprint=tree["fingerprint"],
    )


def _pack(sample: Sample, numbers: dict[str, int]) -> dict[str, object]:
    buffer = io.BytesIO()
    # Lossless WebP: two thirds of PNG for flat icons.
    Image.fromarray(sample.pixels).save(buffer, "WEBP", lossless=True, quality=100, exact=True)
    return {
        schemas.SAMPLE_ID: sample.sample_id,
        schemas.CONCEPT: sample.concept,
        schemas.STYLE: sample.style,
        schemas.SPLIT: sample.split,
        CAPTION_NUMBERS: [numbers.setdefault(text, len(numbers)) for text in sample.captions],
        schemas.IMAGE: buffer.getvalue(),
    }


def _unpack(encoded: Iterable[bytes]) -> Iterator[NDArray[np.uint8]]:
    for data in encoded:
        with Image.open(io.BytesIO(data)) as image:
            yield np.asarray(image.convert("RGB")).transpose(2, 0, 1)
