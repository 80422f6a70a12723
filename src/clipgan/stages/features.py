"""Image shards -> CLIP features, one feature shard an image shard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clipgan import schemas
from clipgan.artifacts import TEMPORARY_SUFFIX, hash_json, replace_folder
from clipgan.clip import feature_store
from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.clip.feature_store import (
    FeatureShard,
    compute_features_fingerprint,
    read_finished_shard,
    save_shard,
)
from clipgan.config import FeaturesConfig
from clipgan.config.effective import select_features
from clipgan.data.decoding import decode_image
from clipgan.data.shards import ImagesManifest, ShardEntry, load_manifest, read_shard
from clipgan.devices import resolve_device
from clipgan.errors import FeatureStoreError
from clipgan.images import to_unit_range
from clipgan.progress import ProgressBar, progress_bar
from clipgan.run_logger import NULL_LOGGER, RunLogger
from clipgan.source_code import hash_sources

_COLUMNS = [schemas.SAMPLE_ID, schemas.CAPTIONS, schemas.IMAGE]


@dataclass(frozen=True)
class FeaturesReport:
    """What the stage did: ``num_encoded`` images in this call, the others were there already."""

    num_images: int
    num_captions: int
    num_encoded: int
    embed_dim: int
    fingerprint: str
    clip: dict[str, str]


def extract_features(
    config: FeaturesConfig,
    *,
    images: Path,
    features: Path,
    work: Path,
    clip: ClipEncoder | None = None,
    logger: RunLogger = NULL_LOGGER,
) -> FeaturesReport:
    """Encode every image and caption once.

    Finished shards lie in ``work/<hash of CLIP, images, settings and code>/`` until all are there,
    so a killed run redoes at most one. Whether there is anything to do is DVC's to say, not asked
    here.

    Raises:
        DataError: the image shards are missing or damaged.
        ClipError: the model is unknown or its weights cannot be loaded.
        FeatureStoreError: a feature is NaN or Inf, or the disk is full or not writable.
    """
    del logger  # the run that is logged begins with training
    manifest = load_manifest(images)
    device = resolve_device(config.device)
    if clip is None:
        clip = load_clip(
            config.clip_model, config.clip_weights, precision=config.precision, device=device
        )
    fingerprint = compute_features_fingerprint(clip.fingerprint, manifest.fingerprint)
    made_by = [select_features(config), hash_sources("clipgan.stages.features")]
    folder = work / hash_json([fingerprint, made_by])[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(f".*{TEMPORARY_SUFFIX}"):
            partial.unlink()
        extraction = _Extraction(clip, device, config.batch_size, manifest, fingerprint)
        num_encoded = extraction.run(images, folder)
        features.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, features)
    except OSError as error:
        raise FeatureStoreError(
            f"{folder}: cannot be written ({error.strerror or error}); finished shards are kept: "
            "make room or set the rights, then run again"
        ) from error
    # Only leftovers of interrupted runs with other settings are beside ours.
    shutil.rmtree(work, ignore_errors=True)
    return _make_report(features, num_encoded=num_encoded)


class _Extraction:
    """One pass over the image shards."""

    def __init__(
        self,
        clip: ClipEncoder,
        device: torch.device,
        batch_size: int,
        manifest: ImagesManifest,
        fingerprint: str,
    ) -> None:
        self.clip, self.device, self.batch_size = clip, device, batch_size
        self.manifest, self.fingerprint = manifest, fingerprint

    def run(self, images: Path, folder: Path) -> int:
        """Write the shards that are missing and the manifest; returns the images encoded."""
        finished = {
            entry.name: read_finished_shard(
                folder / _name_shard(entry), self.fingerprint, entry.num_rows
            )
            for entry in self.manifest.shards
        }
        done = sum(shard.num_rows for shard in finished.values() if shard)
        total = self.manifest.num_images
        with progress_bar("features", total, "images", done=done) as bar:
            shards = [
                finished[entry.name]
                or self._encode_shard(images / entry.name, folder / _name_shard(entry), bar)
                for entry in self.manifest.shards
            ]
        feature_store.save_manifest(
            folder,
            shards,
            clip=self.clip.fingerprint,
            images_fingerprint=self.manifest.fingerprint,
            embed_dim=self.clip.embed_dim,
        )
        return total - done

    def _encode_shard(self, source: Path, target: Path, bar: ProgressBar) -> FeatureShard:
        table = read_shard(source, _COLUMNS)
        captions = table[schemas.CAPTIONS].to_pylist()
        encoded = table[schemas.IMAGE]
        found = []
        with torch.inference_mode():
            for batch in _decode_ahead(encoded, self.batch_size):
                pixels = to_unit_range(torch.from_numpy(batch).to(self.device))
                # Stored (N, H, W, 3): turned on the device, where it costs nothing.
                vectors = self.clip.encode_images(pixels.permute(0, 3, 1, 2))
                found.append(vectors.to("cpu", torch.float16).numpy())
                bar.advance(len(batch))
            texts = self._encode_captions([text for some in captions for text in some])
        return save_shard(
            target,
            sample_ids=table[schemas.SAMPLE_ID].to_pylist(),
            captions=captions,
            image_features=np.concatenate(found),
            text_features=texts,
            clip=self.clip.fingerprint,
            images_fingerprint=self.manifest.fingerprint,
        )

    def _encode_captions(self, captions: Sequence[str]) -> NDArray[np.float16]:
        if not captions:
            return np.empty((0, self.clip.embed_dim), dtype=np.float16)
        numbers: dict[str, int] = {}
        places = [numbers.setdefault(text, len(numbers)) for text in captions]
        vectors = self.clip.encode_texts(list(numbers)).to("cpu", torch.float16).numpy()
        found: NDArray[np.float16] = vectors[places]
        return found


def _decode_ahead(encoded: Sequence[object], batch_size: int) -> Iterator[NDArray[np.uint8]]:
    """Batches (N, S, S, 3) uint8; the next one is decoded while the caller works on this one."""

    def decode(first: int) -> NDArray[np.uint8]:
        rows = range(first, min(first + batch_size, len(encoded)))
        return np.stack([decode_image(encoded[row].as_py()) for row in rows])  # type: ignore[attr-defined]

    starts = range(0, len(encoded), batch_size)
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: Future[NDArray[np.uint8]] | None = None
        for first in starts:
            ready, waiting = waiting, pool.submit(decode, first)
            if ready is not None:
                yield ready.result()
        if waiting is not None:
            yield waiting.result()


def _name_shard(entry: ShardEntry) -> str:
    return entry.name.replace("images-", "features-")


def _make_report(features: Path, *, num_encoded: int) -> FeaturesReport:
    manifest = feature_store.load_manifest(features)
    return FeaturesReport(
        num_images=manifest.num_images,
        num_captions=manifest.num_captions,
        num_encoded=num_encoded,
        embed_dim=manifest.embed_dim,
        fingerprint=manifest.fingerprint,
        clip=manifest.clip,
    )
