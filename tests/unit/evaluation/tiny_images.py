"""Image shards of a few flat drawings: concepts in styles, for the tests of this folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clipgan import schemas
from clipgan.data.shards import ShardWriter, build_manifest, save_manifest


@dataclass(frozen=True)
class Drawing:
    concept: str
    captions: Sequence[str]
    style: str = "plain"
    split: str = schemas.TRAIN
    pattern: str | None = None  # None: the concept's


def draw(concept: str, side_px: int) -> np.ndarray:
    """A pattern of coloured squares that the concept alone decides: (S, S, 3) uint8."""
    seed = int.from_bytes(hashlib.sha256(concept.encode()).digest()[:4], "big")
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cells.repeat(side_px // 4, axis=0).repeat(side_px // 4, axis=1)


def build_images(folder: Path, drawings: Sequence[Drawing], side_px: int = 16) -> Path:
    """Write the drawings as two shards; sample ids count through."""
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, shard_size_mb=1.0, provenance="{}")
    entries = []
    for number, drawing in enumerate(drawings):
        data = io.BytesIO()
        Image.fromarray(draw(drawing.pattern or drawing.concept, side_px)).save(data, format="PNG")
        writer.add(
            {
                schemas.SAMPLE_ID: f"{number:04d}",
                schemas.SOURCE_KEY: f"{number}.png",
                schemas.CONCEPT: drawing.concept,
                schemas.STYLE: drawing.style,
                schemas.SPLIT: drawing.split,
                schemas.CAPTIONS: list(drawing.captions),
                schemas.WIDTH: side_px,
                schemas.HEIGHT: side_px,
                schemas.SHA256: hashlib.sha256(data.getvalue()).hexdigest(),
                schemas.IMAGE: data.getvalue(),
            }
        )
        if number == len(drawings) // 2:
            entries.append(writer.write())
    if writer.num_pending:
        entries.append(writer.write())
    save_manifest(folder, build_manifest(entries, side_px))
    return folder
