"""CLIP features on disk: a Parquet shard for each image shard, and a manifest that is written last.

Every shard and the manifest name the CLIP (its fingerprint) and the images of the features.
Features of another CLIP or other images are refused with both values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clipgan import schemas
from clipgan.artifacts import atomic_path, hash_file, hash_json, write_json
from clipgan.errors import FeatureStoreError

MANIFEST = "manifest.json"
_REMEDY = "run `clipgan stage features` again"


@dataclass(frozen=True)
class FeatureShard:
    """One file of a features folder."""

    name: str
    num_rows: int
    num_captions: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class FeaturesManifest:
    """Contents of a features folder; ``fingerprint`` covers the CLIP and the images."""

    fingerprint: str
    clip: dict[str, str]
    images_fingerprint: str
    embed_dim: int
    num_images: int
    num_captions: int
    shards: tuple[FeatureShard, ...]


@dataclass(frozen=True)
class FeatureTable:
    """All features in memory, in the order of the image shards.

    ``image_features`` (N, D) and ``text_features`` (M, D) are float16 of unit norm. The captions of
    image i are rows ``caption_offsets[i]:caption_offsets[i + 1]`` of ``text_features`` and
    ``captions``. ``clip`` is the fingerprint of the CLIP that made them.
    """

    sample_ids: list[str]
    image_features: NDArray[np.float16]
    text_features: NDArray[np.float16]
    caption_offsets: NDArray[np.int64]
    captions: list[str]
    clip: dict[str, str]


def compute_features_fingerprint(clip: Mapping[str, str], images_fingerprint: str) -> str:
    """Hash everything that the features are made from."""
    return hash_json([schemas.SCHEMA_VERSION, dict(clip), images_fingerprint])


def save_shard(
    path: Path,
    *,
    sample_ids: Sequence[str],
    captions: Sequence[Sequence[str]],
    image_features: NDArray[np.float16],
    text_features: NDArray[np.float16],
    clip: Mapping[str, str],
    images_fingerprint: str,
) -> FeatureShard:
    """Write one shard atomically.

    Args:
        captions: of every image; ``text_features`` (M, D) are of all captions in this order.

    Raises:
        FeatureStoreError: a feature is NaN, infinite or no unit vector; names the sample.
    """
    counts = np.array([len(texts) for texts in captions], dtype=np.int64)
    owners = [sample_ids[i] for i in np.repeat(np.arange(len(counts)), counts).tolist()]
    _check_unit_norm(image_features, sample_ids, "image")
    _check_unit_norm(text_features, owners, "caption")
    dim = image_features.shape[1]
    schema = schemas.feature_shard(dim)
    texts = pa.ListArray.from_arrays(_offsets(counts), _vectors(text_features, dim))
    table = pa.Table.from_arrays(
        [
            pa.array(list(sample_ids), pa.string()),
            pa.array([list(some) for some in captions], pa.list_(pa.string())),
            _vectors(image_features, dim),
            texts,
        ],
        schema=schema,
    )
    metadata = {
        schemas.VERSION_KEY: schemas.SCHEMA_VERSION,
        schemas.FINGERPRINT_KEY: compute_features_fingerprint(clip, images_fingerprint),
        schemas.PROVENANCE_KEY: json.dumps({"clip": dict(clip), "images": images_fingerprint}),
    }
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, write_page_checksum=True)
    return _describe_shard(path, len(sample_ids), int(counts.sum()))


def read_finished_shard(path: Path, fingerprint: str, num_rows: int) -> FeatureShard | None:
    """Describe a shard that an interrupted run has completed; None: there is no complete shard.

    Args:
        fingerprint: see :func:`compute_features_fingerprint`.
        num_rows: of the image shard it belongs to.
    """
    if not path.is_file():
        return None
    try:
        table = _read_table(path, fingerprint)
    except FeatureStoreError:
        return None  # truncated or of another run, so it is made again
    if table.num_rows != num_rows:
        return None
    num_captions = len(table[schemas.CAPTIONS].combine_chunks().flatten())
    return _describe_shard(path, num_rows, num_captions)


def save_features_manifest(
    folder: Path,
    shards: Sequence[FeatureShard],
    *,
    clip: Mapping[str, str],
    images_fingerprint: str,
    embed_dim: int,
) -> FeaturesManifest:
    """Write ``manifest.json``, which makes the folder complete."""
    manifest = FeaturesManifest(
        fingerprint=compute_features_fingerprint(clip, images_fingerprint),
        clip=dict(clip),
        images_fingerprint=images_fingerprint,
        embed_dim=embed_dim,
        num_images=sum(shard.num_rows for shard in shards),
        num_captions=sum(shard.num_captions for shard in shards),
        shards=tuple(shards),
    )
    write_json(folder / MANIFEST, {"schema_version": schemas.SCHEMA_VERSION, **asdict(manifest)})
    return manifest


def load_features_manifest(features_dir: Path) -> FeaturesManifest:
    """Read the manifest and check that every shard is there at its full size.

    Raises:
        FeatureStoreError: the folder or a shard is missing, truncated or of another format.
    """
    path = features_dir / MANIFEST
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        version = tree.pop("schema_version")
        if version != schemas.SCHEMA_VERSION:
            raise FeatureStoreError(
                f"{path}: schema version {version!r}, this clipgan reads "
                f"{schemas.SCHEMA_VERSION!r}; {_REMEDY}"
            )
        shards = tuple(FeatureShard(**entry) for entry in tree.pop("shards"))
        manifest = FeaturesManifest(**tree, shards=shards)
    except FileNotFoundError:
        raise FeatureStoreError(f"{path}: no such file; {_REMEDY}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FeatureStoreError(f"{path}: damaged ({error!r}); {_REMEDY}") from None
    for shard in manifest.shards:
        file = features_dir / shard.name
        if not file.is_file():
            raise FeatureStoreError(f"{file}: the shard is missing; {_REMEDY}")
        if (size := file.stat().st_size) != shard.num_bytes:
            raise FeatureStoreError(
                f"{file}: {size} bytes, {shard.num_bytes} were written; {_REMEDY}"
            )
    return manifest


def load_features(
    features_dir: Path,
    *,
    images_fingerprint: str | None = None,
    clip_fingerprint: Mapping[str, str] | None = None,
) -> FeatureTable:
    """Read all shards.

    Args:
        images_fingerprint: of the images; features of others are refused. None: any images.
        clip_fingerprint: of the CLIP; features of another are refused. None: any CLIP.

    Raises:
        FeatureStoreError: a shard is missing or damaged, or the features are of another CLIP or
            other images; names both values.
    """
    manifest = load_features_manifest(features_dir)
    if clip_fingerprint is not None:
        check_clip_fingerprint(manifest.clip, clip_fingerprint, features_dir)
    if images_fingerprint not in (None, manifest.images_fingerprint):
        raise FeatureStoreError(
            f"{features_dir}: features of the images {manifest.images_fingerprint[:12]}, but the "
            f"images here are {str(images_fingerprint)[:12]}; {_REMEDY}"
        )
    tables = []
    for shard in manifest.shards:
        path = features_dir / shard.name
        if (sha256 := hash_file(path)) != shard.sha256:
            raise FeatureStoreError(
                f"{path}: damaged or exchanged: sha256 {sha256[:12]}, {MANIFEST} says "
                f"{shard.sha256[:12]}; {_REMEDY}"
            )
        tables.append(_read_table(path, manifest.fingerprint))
    table = pa.concat_tables(tables).combine_chunks()
    captions = table[schemas.CAPTIONS].combine_chunks()
    dim = manifest.embed_dim
    images = table[schemas.IMAGE_FEATURES].combine_chunks().flatten()
    texts = table[schemas.TEXT_FEATURES].combine_chunks().flatten().flatten()
    counts = np.asarray(captions.value_lengths(), dtype=np.int64)
    return FeatureTable(
        sample_ids=table[schemas.SAMPLE_ID].to_pylist(),
        image_features=images.to_numpy(zero_copy_only=False).reshape(-1, dim),
        text_features=texts.to_numpy(zero_copy_only=False).reshape(-1, dim),
        caption_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        captions=captions.flatten().to_pylist(),
        clip=manifest.clip,
    )


def check_clip_fingerprint(
    stored: Mapping[str, str], expected: Mapping[str, str], features_dir: Path
) -> None:
    """Refuse features of another CLIP.

    Raises:
        FeatureStoreError: names the first difference with both values.
    """
    for key in sorted({*stored, *expected}):
        made, wanted = stored.get(key, "none"), expected.get(key, "none")
        if made != wanted:
            raise FeatureStoreError(
                f"{features_dir}: the features were made with CLIP {key} = {made!r}, this run "
                f"uses {wanted!r}; {_REMEDY}, or set params.yaml's features section back"
            )


def _describe_shard(path: Path, num_rows: int, num_captions: int) -> FeatureShard:
    return FeatureShard(path.name, num_rows, num_captions, path.stat().st_size, hash_file(path))


def _read_table(path: Path, fingerprint: str) -> pa.Table:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise FeatureStoreError(f"{path}: the shard is damaged ({reason}); {_REMEDY}") from None
    stored = (table.schema.metadata or {}).get(schemas.FINGERPRINT_KEY, b"").decode()
    if stored != fingerprint:
        raise FeatureStoreError(
            f"{path}: features of {stored[:12] or 'nothing known'} instead of "
            f"{fingerprint[:12]}; {_REMEDY}"
        )
    return table


def _check_unit_norm(features: NDArray[np.float16], owners: Sequence[str], kind: str) -> None:
    norms = np.linalg.norm(features.astype(np.float32), axis=1)
    # Half precision keeps a unit vector to about 1e-3.
    bad = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-2))
    if len(bad):
        first = int(bad[0])
        raise FeatureStoreError(
            f"sample {owners[first]}: its {kind} feature has norm {norms[first]} instead of 1 "
            f"({len(bad)} of {len(norms)} are like this): the CLIP weights are damaged, or "
            "features.precision is too low for this model"
        )


def _vectors(features: NDArray[np.float16], dim: int) -> pa.FixedSizeListArray:
    values = pa.array(np.ascontiguousarray(features, dtype=np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, dim)


def _offsets(counts: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
