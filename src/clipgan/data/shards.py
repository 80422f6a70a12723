"""Image shards on disk: Parquet files, and a manifest that names them with size and content.

A folder is complete when its manifest exists: writers write the manifest last and move the whole
folder into place. Readers refuse a shard that is missing, truncated, damaged or another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipgan import artifacts, schemas
from clipgan.errors import DataError

MANIFEST = "manifest.json"
PNG_MAGIC = b"\x89PNG"
_ROWS_PER_GROUP = 1024
_REMEDY = "run `clipgan stage ingest` again"


@dataclass(frozen=True)
class ShardEntry:
    """One file of the folder: ``fingerprint`` covers its rows, ``sha256`` its bytes."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str
    fingerprint: str


@dataclass(frozen=True)
class ImagesManifest:
    """What an images folder holds.

    ``fingerprint`` depends only on the pixels that a reader decodes, on captions, concepts and
    splits. So equal data made on another day or machine have the same fingerprint, and JPEGs of
    another quality a different one.
    """

    fingerprint: str
    num_images: int
    resolution_px: int
    shards: tuple[ShardEntry, ...]


def build_manifest(shards: Sequence[ShardEntry], resolution_px: int) -> ImagesManifest:
    """The manifest of finished shards, in their order."""
    content = {"resolution_px": resolution_px, "shards": [shard.fingerprint for shard in shards]}
    return ImagesManifest(
        fingerprint=artifacts.hash_json(content),
        num_images=sum(shard.num_rows for shard in shards),
        resolution_px=resolution_px,
        shards=tuple(shards),
    )


def save_manifest(images_dir: Path, manifest: ImagesManifest) -> None:
    """Write ``manifest.json``."""
    tree = {"schema_version": schemas.SCHEMA_VERSION, **asdict(manifest)}
    artifacts.write_json(images_dir / MANIFEST, tree)


def load_manifest(images_dir: Path) -> ImagesManifest:
    """Read the manifest and check every shard's presence, size and footer (not its pixels).

    Raises:
        DataError: the folder or a shard is missing, cut short, or not the one the manifest names.
    """
    path = images_dir / MANIFEST
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["schema_version"] != schemas.SCHEMA_VERSION:
            raise DataError(
                f"{path}: schema version {tree['schema_version']!r}, this clipgan reads "
                f"{schemas.SCHEMA_VERSION!r}; {_REMEDY}"
            )
        manifest = ImagesManifest(
            fingerprint=tree["fingerprint"],
            num_images=tree["num_images"],
            resolution_px=tree["resolution_px"],
            shards=tuple(ShardEntry(**entry) for entry in tree["shards"]),
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {_REMEDY}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); {_REMEDY}") from None
    for entry in manifest.shards:
        check_shard(images_dir / entry.name, entry)
    return manifest


def check_shard(path: Path, entry: ShardEntry) -> None:
    """Refuse a shard that is missing, cut short or another one.

    Raises:
        DataError: names the file and what is wrong with it.
    """
    if not path.exists():
        raise DataError(f"{path}: the shard is missing; {_REMEDY}")
    num_bytes = path.stat().st_size
    if num_bytes != entry.num_bytes:
        raise DataError(f"{path}: {num_bytes} bytes, {entry.num_bytes} were written; {_REMEDY}")
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None
    fingerprint = (footer.metadata or {}).get(schemas.FINGERPRINT_KEY, b"").decode()
    if footer.num_rows != entry.num_rows or fingerprint != entry.fingerprint:
        raise DataError(f"{path}: not the shard that {MANIFEST} names; {_REMEDY}")


def iterate_tables(
    images_dir: Path, columns: Sequence[str], split: str | None = None
) -> Iterator[pa.Table]:
    """One table a shard, with ``columns`` only and the rows of ``split`` (None: all), in order.

    Page checksums are verified, so that a flipped bit is an error and not a changed image.

    Raises:
        DataError: see :func:`load_manifest`; also a shard damaged inside.
    """
    for entry in load_manifest(images_dir).shards:
        yield read_shard(images_dir / entry.name, columns, split)


def read_shard(path: Path, columns: Sequence[str], split: str | None = None) -> pa.Table:
    """The rows of one shard; see :func:`iterate_tables`."""
    read = list(columns) if split is None else list(dict.fromkeys([*columns, schemas.SPLIT]))
    try:
        table = pq.read_table(path, columns=read, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path}: the shard is missing; {_REMEDY}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None
    if split is not None:
        table = table.filter(pc.equal(table[schemas.SPLIT], split))
    return table.select(list(columns))


class ShardWriter:
    """Collects rows and writes them as one Parquet file after the other.

    A shard is due when the encoded images in it reach ``shard_size_mb``; the caller decides when to
    :meth:`write`, so that what it knows about the shard can be saved beside it.
    """

    def __init__(
        self, folder: Path, *, shard_size_mb: float, provenance: str, num_written: int = 0
    ) -> None:
        self.folder = folder
        self.num_written = num_written
        self._limit_bytes = shard_size_mb * 1e6
        self._provenance = provenance
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0

    @property
    def is_full(self) -> bool:
        return self._num_bytes >= self._limit_bytes

    @property
    def num_pending(self) -> int:
        return len(self._rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add one row of :data:`clipgan.schemas.IMAGE_SHARD`."""
        self._rows.append(row)
        self._num_bytes += len(row[schemas.IMAGE])

    def write(self) -> ShardEntry:
        """Write the collected rows atomically as the next shard and forget them.

        Raises:
            OSError: nothing is left behind under the shard's name.
        """
        path = self.folder / f"images-{self.num_written:05d}.parquet"
        entry = _write_rows(path, self._rows, self._provenance)
        self.num_written += 1
        self._rows, self._num_bytes = [], 0
        return entry


def join_captions(
    source: Path, target: Path, added: Mapping[str, Sequence[str]], *, limit: int
) -> ShardEntry:
    """Copy a shard to ``target`` with further captions, by sample id, without repetitions, and
    at most ``limit`` an image (0: all).

    Raises:
        DataError: the source is damaged.
    """
    table = read_shard(source, schemas.IMAGE_SHARD.names)
    rows = table.to_pylist()
    for row in rows:
        captions = [*row[schemas.CAPTIONS], *added.get(row[schemas.SAMPLE_ID], ())]
        row[schemas.CAPTIONS] = list(dict.fromkeys(captions))[: limit or None]
    provenance = table.schema.metadata[schemas.PROVENANCE_KEY].decode()
    return _write_rows(target, rows, provenance)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]], provenance: str) -> ShardEntry:
    fingerprint = artifacts.hash_json([_identify_row(row) for row in rows])
    metadata = {
        schemas.VERSION_KEY: schemas.SCHEMA_VERSION,
        schemas.FINGERPRINT_KEY: fingerprint,
        schemas.PROVENANCE_KEY: provenance,
    }
    table = pa.Table.from_pylist(rows, schema=schemas.IMAGE_SHARD)
    with artifacts.atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            row_group_size=_ROWS_PER_GROUP,
            # PNG and JPEG do not shrink further.
            compression={
                name: "NONE" if name == schemas.IMAGE else "ZSTD" for name in _leaf_columns()
            },
            use_dictionary=[schemas.SPLIT, schemas.STYLE, schemas.CONCEPT],
            write_page_checksum=True,
        )
    return ShardEntry(
        name=path.name,
        num_rows=len(rows),
        num_bytes=path.stat().st_size,
        sha256=artifacts.hash_file(path),
        fingerprint=fingerprint,
    )


def _leaf_columns() -> list[str]:
    names = [field.name for field in schemas.IMAGE_SHARD]
    return [f"{name}.list.element" if name == schemas.CAPTIONS else name for name in names]


def _identify_row(row: dict[str, Any]) -> dict[str, Any]:
    left_out = {schemas.IMAGE}
    if row[schemas.IMAGE].startswith(PNG_MAGIC):
        # Lossless: sample_id covers the pixels, and the bytes differ between zlib builds.
        left_out.add(schemas.SHA256)
    return {key: value for key, value in row.items() if key not in left_out}


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(f"{path}: the shard is damaged ({reason}); {_REMEDY}")
