"""Stage features: image shards -> CLIP features, a feature shard for each image shard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clipgan import schemas
from clipgan.artifacts import TEMPORARY_SUFFIX, built_folder, hash_json, link_file
from clipgan.clip import feature_store
from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.clip.feature_parts import FeatureParts
from clipgan.clip.feature_store import (
    FeatureShard,
    FeaturesManifest,
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
from clipgan.resume_state import mark_finished, remove_abandoned
from clipgan.source_code import hash_sources
from clipgan.threads import renew_threads

_PARTS_FOLDER = "parts"
_TEXTS_PER_PART = 1024
"""A multiple of the encoder's batch, so that batches do not depend on the parts."""
_COLUMNS = [schemas.SAMPLE_ID, schemas.CAPTIONS, schemas.IMAGE]


def extract_features(
    config: FeaturesConfig,
    *,
    images: Path,
    features: Path,
    work: Path,
    clip: ClipEncoder | None = None,
) -> FeaturesManifest:
    """Encode every image and caption once.

    Finished shards, and the pieces of an unfinished one, lie in ``work/<hash of CLIP, images,
    settings and code>/``, so a killed run repeats at most one piece. The shards stay there at the
    end (see :mod:`clipgan.resume_state`). DVC decides whether the stage has to run.

    Raises:
        DataError: the image shards are missing or damaged.
        ClipError: the model is unknown or its weights cannot be loaded.
        FeatureStoreError: a feature is NaN or Inf, or the disk is full or not writable.
    """
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
        for unfinished in folder.rglob(f".*{TEMPORARY_SUFFIX}"):
            unfinished.unlink()
        extraction = _Extraction(clip, device, config.batch_size, manifest, fingerprint)
        extraction.run(images, folder)
        _place_output(folder, features)
        mark_finished(folder, features)
    except OSError as error:
        raise FeatureStoreError(
            f"{folder}: cannot be written ({error.strerror or error}); finished shards are kept: "
            "make room or set the rights, then run again"
        ) from error
    # Interrupted runs with other settings have left them.
    remove_abandoned(work)
    return feature_store.load_features_manifest(features)


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

    def run(self, images: Path, folder: Path) -> None:
        """Write the missing shards and the manifest."""
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
        shutil.rmtree(folder / _PARTS_FOLDER, ignore_errors=True)
        feature_store.save_features_manifest(
            folder,
            shards,
            clip=self.clip.fingerprint,
            images_fingerprint=self.manifest.fingerprint,
            embed_dim=self.clip.embed_dim,
        )

    def _encode_shard(self, source: Path, target: Path, bar: ProgressBar) -> FeatureShard:
        table = read_shard(source, _COLUMNS)
        captions = table[schemas.CAPTIONS].to_pylist()
        parts = FeatureParts(target.parent / _PARTS_FOLDER / target.stem)
        with torch.inference_mode():
            image_features = parts.fetch(
                "images",
                (table.num_rows, self.clip.embed_dim),
                lambda: self._encode_images(table[schemas.IMAGE], bar),
            )
            texts = self._encode_captions([text for some in captions for text in some], parts)
        shard = save_shard(
            target,
            sample_ids=table[schemas.SAMPLE_ID].to_pylist(),
            captions=captions,
            image_features=image_features,
            text_features=texts,
            clip=self.clip.fingerprint,
            images_fingerprint=self.manifest.fingerprint,
        )
        parts.remove()
        return shard

    def _encode_images(self, encoded: Sequence[object], bar: ProgressBar) -> NDArray[np.float16]:
        vectors = []
        for batch in _decode_ahead(encoded, self.batch_size):
            renew_threads()
            pixels = to_unit_range(torch.from_numpy(batch).to(self.device))
            # (N, H, W, 3) is permuted on the device, where it costs nothing.
            encoded_batch = self.clip.encode_images(pixels.permute(0, 3, 1, 2))
            vectors.append(encoded_batch.to("cpu", torch.float16).numpy())
            bar.advance(len(batch))
        return np.concatenate(vectors)

    def _encode_captions(self, captions: Sequence[str], parts: FeatureParts) -> NDArray[np.float16]:
        # Captions are padded to the longest of their batch, so similar lengths share a part.
        texts = sorted(dict.fromkeys(captions), key=len)
        vectors = np.empty((len(texts), self.clip.embed_dim), dtype=np.float16)
        with progress_bar("features", len(texts), "captions", shown=bool(texts)) as bar:
            for number, first in enumerate(range(0, len(texts), _TEXTS_PER_PART)):
                renew_threads()
                chosen = texts[first : first + _TEXTS_PER_PART]
                vectors[first : first + len(chosen)] = parts.fetch(
                    f"captions-{number:05d}",
                    (len(chosen), self.clip.embed_dim),
                    partial(self._encode_texts, chosen),
                )
                bar.advance(len(chosen))
        places = {text: place for place, text in enumerate(texts)}
        return vectors[[places[text] for text in captions]]

    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float16]:
        vectors: NDArray[np.float16] = (
            self.clip.encode_texts(texts).to("cpu", torch.float16).numpy()
        )
        return vectors


def _decode_ahead(encoded: Sequence[object], batch_size: int) -> Iterator[NDArray[np.uint8]]:
    """Decode batches (N, S, S, 3) uint8, the next one while the caller works on this one."""

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


def _place_output(folder: Path, features: Path) -> None:
    with built_folder(features) as building:
        for path in [*folder.glob("features-*.parquet"), folder / feature_store.MANIFEST]:
            link_file(path, building / path.name)


def _name_shard(entry: ShardEntry) -> str:
    return entry.name.replace("images-", "features-")
