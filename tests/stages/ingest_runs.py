"""Runs of the ingest stage on folders made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from clipgan import artifacts, schemas
from clipgan.config import IngestConfig
from clipgan.data.ingest_report import IngestReport
from clipgan.data.shards import iterate_tables
from clipgan.stages.ingest import ingest
from tests.params import params_with
from tests.unit.data.pictures import encode, picture


def make_config(folder: Path, **changes: Any) -> IngestConfig:
    settings = {
        "source": "folder",
        "folder": str(folder),
        "resolution_px": 32,
        "min_side_px": 16,
        "shard_size_mb": 0.01,  # four or five images
        **changes,
    }
    return params_with({f"ingest.{key}": value for key, value in settings.items()}).ingest


def run(root: Path, config: IngestConfig) -> IngestReport:
    return ingest(config, images=root / "images", raw=root / "raw", work=root / "work")


def fill_folder(folder: Path, num_images: int = 30) -> Path:
    folder.mkdir(parents=True)
    for index in range(num_images):
        (folder / f"{index:03d}.png").write_bytes(encode(picture(40, 32, seed=index)))
        (folder / f"{index:03d}.txt").write_text(f"picture {index}\nthe same picture {index}\n")
    return folder


def load_rows(images: Path) -> list[dict[str, Any]]:
    return pa.concat_tables(iterate_tables(images, schemas.IMAGE_SHARD.names)).to_pylist()


def snapshot(folder: Path) -> dict[str, str]:
    return {path.name: artifacts.hash_file(path) for path in sorted(folder.iterdir())}
