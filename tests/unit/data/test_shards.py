from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipgan import schemas
from clipgan.data.shards import (
    ShardWriter,
    build_manifest,
    iterate_tables,
    join_captions,
    load_manifest,
    save_manifest,
)
from clipgan.errors import DataError


def row(index: int, num_bytes: int = 100) -> dict[str, Any]:
    return {
        schemas.SAMPLE_ID: f"{index:08d}-ab",
        schemas.SOURCE_KEY: f"{index}.png",
        schemas.CONCEPT: f"c{index}",
        schemas.STYLE: "",
        schemas.SPLIT: schemas.VALIDATION if index % 4 == 3 else schemas.TRAIN,
        schemas.CAPTIONS: [f"caption {index}"] * (index % 3),
        schemas.WIDTH: 40,
        schemas.HEIGHT: 30,
        schemas.SHA256: "00",
        schemas.IMAGE: bytes([index]) * num_bytes,
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three shards of four rows."""
    writer = ShardWriter(tmp_path, shard_size_mb=0.0004, provenance="{}")
    shards = []
    for index in range(12):
        writer.add(row(index))
        if writer.is_full:
            shards.append(writer.write())
    assert writer.num_pending == 0
    save_manifest(tmp_path, build_manifest(shards, 32))
    return tmp_path


def test_rows_come_back_in_order(images: Path) -> None:
    manifest = load_manifest(images)
    assert [shard.num_rows for shard in manifest.shards] == [4, 4, 4]
    assert (manifest.num_images, manifest.resolution_px) == (12, 32)
    tables = list(iterate_tables(images, schemas.IMAGE_SHARD.names))
    assert pa.concat_tables(tables).to_pylist() == [row(index) for index in range(12)]


def test_columns_and_splits_are_selected(images: Path) -> None:
    tables = list(iterate_tables(images, [schemas.SAMPLE_ID], schemas.VALIDATION))
    assert [table.column_names for table in tables] == [[schemas.SAMPLE_ID]] * 3
    ids = pa.concat_tables(tables)[schemas.SAMPLE_ID].to_pylist()
    assert ids == ["00000003-ab", "00000007-ab", "00000011-ab"]


def test_shards_carry_version_fingerprint_and_provenance(images: Path) -> None:
    entry = load_manifest(images).shards[1]
    metadata = pq.read_schema(images / entry.name).metadata
    assert metadata[schemas.VERSION_KEY].decode() == schemas.SCHEMA_VERSION
    assert metadata[schemas.FINGERPRINT_KEY].decode() == entry.fingerprint
    assert metadata[schemas.PROVENANCE_KEY] == b"{}"


def test_the_fingerprint_follows_the_content_only(images: Path, tmp_path: Path) -> None:
    def fingerprint(**changes: Any) -> str:
        folder = tmp_path / "other"
        folder.mkdir(exist_ok=True)
        writer = ShardWriter(folder, shard_size_mb=1.0, provenance="elsewhere")
        writer.add({**row(1), **changes})
        return build_manifest([writer.write()], 32).fingerprint

    assert fingerprint() == fingerprint()
    assert fingerprint() != fingerprint(captions=["another"])
    assert fingerprint() != fingerprint(split=schemas.VALIDATION)
    png = {schemas.IMAGE: b"\x89PNG", schemas.SHA256: "11"}
    other_zlib = {schemas.IMAGE: b"\x89PNG of another zlib, same pixels", schemas.SHA256: "12"}
    assert fingerprint(**png) == fingerprint(**other_zlib)
    jpeg = {schemas.IMAGE: b"\xff\xd8", schemas.SHA256: "11"}
    assert fingerprint(**jpeg) != fingerprint(**jpeg | {schemas.SHA256: "12"})


def test_captions_are_joined_without_repetition(images: Path, tmp_path: Path) -> None:
    (tmp_path / "joined").mkdir()
    target = tmp_path / "joined" / "images-00000.parquet"
    added = {"00000001-ab": ["caption 1", "new"], "00000009-ab": ["elsewhere"]}
    entry = join_captions(images / "images-00000.parquet", target, added, limit=0)
    rows = pq.read_table(target).to_pylist()
    assert [r[schemas.CAPTIONS] for r in rows] == [
        [],
        ["caption 1", "new"],
        ["caption 2"],
        [],
    ]
    assert rows[2][schemas.IMAGE] == row(2)[schemas.IMAGE]
    assert entry.fingerprint != load_manifest(images).shards[0].fingerprint
    join_captions(images / "images-00000.parquet", target, added, limit=1)
    limited = [r[schemas.CAPTIONS] for r in pq.read_table(target).to_pylist()]
    assert limited == [[], ["caption 1"], ["caption 2"], []]


def assert_refused(images: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(iterate_tables(images, [schemas.IMAGE]))
    assert "\n" not in str(caught.value)


def test_a_deleted_shard(images: Path) -> None:
    (images / "images-00001.parquet").unlink()
    assert_refused(
        images, r"images-00001.parquet: the shard is missing; run `clipgan stage ingest`"
    )


def test_a_truncated_shard(images: Path) -> None:
    path = images / "images-00001.parquet"
    whole = path.read_bytes()
    for size in (len(whole) // 2, 0, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused(images, rf"images-00001.parquet: {size} bytes, {len(whole)} were written")


def test_a_shard_with_a_flipped_bit(images: Path) -> None:
    path = images / "images-00001.parquet"
    data = bytearray(path.read_bytes())
    position = bytes(data).find(bytes([5]) * 50)
    data[position] ^= 1
    path.write_bytes(data)
    assert_refused(images, r"images-00001.parquet: the shard is damaged")


def test_a_shard_of_another_folder(images: Path) -> None:
    size = (images / "images-00001.parquet").stat().st_size
    other = (images / "images-00002.parquet").read_bytes()
    (images / "images-00001.parquet").write_bytes(other[:size].ljust(size, b"\0"))
    assert_refused(images, r"images-00001.parquet: ")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": "1"}', "\xff"])
def test_a_damaged_manifest(text: str, images: Path) -> None:
    (images / "manifest.json").write_text(text, encoding="latin-1")
    assert_refused(images, "manifest.json: damaged")


def test_a_missing_manifest_and_another_version(images: Path) -> None:
    path = images / "manifest.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "schema_version": "0"}))
    assert_refused(images, "schema version '0', this clipgan reads '1'")
    path.unlink()
    assert_refused(images, "manifest.json: no such file; run `clipgan stage ingest` again")


def test_a_full_disk_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(table: pa.Table, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fill_disk)
    writer = ShardWriter(tmp_path, shard_size_mb=1.0, provenance="{}")
    writer.add(row(0))
    with pytest.raises(OSError, match="No space left"):
        writer.write()
    assert list(tmp_path.iterdir()) == []
    assert writer.num_pending == 1
