"""Images and features of the training split, checked against the parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipgan import schemas
from clipgan.clip.feature_store import FeatureTable
from clipgan.config import TrainConfig
from clipgan.data.batches import BatchLoader, TrainingData, build_image_cache, locate_image_cache
from clipgan.data.shards import ImagesManifest, iterate_tables
from clipgan.errors import DataError
from clipgan.training.conditions import Conditions, list_caption_rows
from clipgan.training.distributed import Processes

_BLOCK_ROWS = 65_536


def select_training_images(images: Path, table: FeatureTable) -> NDArray[np.int64]:
    """Rows of the feature table that belong to the training split, in its order."""
    columns = iterate_tables(images, [schemas.SAMPLE_ID], split=schemas.TRAIN)
    training = {sample_id for part in columns for sample_id in part[schemas.SAMPLE_ID].to_pylist()}
    return np.flatnonzero([sample_id in training for sample_id in table.sample_ids])


def load_training_data(
    config: TrainConfig, images: Path, conditions: Conditions, image_store: Path
) -> TrainingData:
    """Images (decoded once into ``image_store``, memory-mapped) and features to train on.

    Captions that may not be used are left out; features are in the space of ``conditions``.
    """
    table, selected = conditions.table, conditions.selected
    counts = np.where(conditions.captioned, np.diff(table.caption_offsets)[selected], 0)
    image_features = table.image_features[selected]
    text_features = table.text_features[list_caption_rows(table, selected[conditions.captioned])]
    if conditions.means is not None:
        image_features = _map_rows(image_features, conditions.means.centre_images)
        text_features = _map_rows(text_features, conditions.means.centre_texts)
    return TrainingData(
        images_uint8=build_image_cache(
            images,
            [table.sample_ids[i] for i in selected],
            config.resolution_px,
            image_store,
        ),
        image_features=image_features,
        text_features=text_features,
        caption_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def build_loader(
    config: TrainConfig,
    images: Path,
    conditions: Conditions,
    *,
    image_store: Path,
    device: torch.device,
    processes: Processes,
) -> BatchLoader:
    """The loader of this process. The first process decodes the images into a file, all map it."""
    if not processes.is_main:
        processes.wait()
    data = load_training_data(config, images, conditions, image_store)
    if processes.is_main:
        processes.wait()
    return BatchLoader(
        data,
        config.batch_size,
        seed=config.seed,
        mirror=config.mirror,
        device=device,
        rank=processes.rank,
        num_processes=processes.count,
    )


def count_undecoded_bytes(
    config: TrainConfig, images: Path, conditions: Conditions, image_store: Path
) -> int:
    """What :func:`load_training_data` will write: 0 where these images are decoded already."""
    ids = [conditions.table.sample_ids[i] for i in conditions.selected]
    path = locate_image_cache(images, ids, config.resolution_px, image_store)
    return 0 if path.exists() else len(ids) * 3 * config.resolution_px**2


def _map_rows(
    features: NDArray[np.float16], compute: Callable[[Tensor], Tensor]
) -> NDArray[np.float16]:
    """A row-wise map in float32, a block at a time: the features of a large set fill memory."""
    mapped = np.empty_like(features)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = features[start : start + _BLOCK_ROWS].astype(np.float32)
        mapped[start : start + _BLOCK_ROWS] = compute(torch.from_numpy(block)).numpy()
    return mapped


def check_inputs(
    config: TrainConfig,
    manifest: ImagesManifest,
    table: FeatureTable,
    selected: NDArray[np.int64],
    embed_dim: int,
) -> None:
    """Refuse data that cannot be trained on with these parameters.

    Raises:
        DataError: names the value and the fix.
    """
    if config.resolution_px > manifest.resolution_px:
        raise DataError(
            f"train.resolution_px = {config.resolution_px}, but the images are stored at "
            f"{manifest.resolution_px} px: set ingest.resolution_px to {config.resolution_px} and "
            f"run ingest again, or train.resolution_px to {manifest.resolution_px}"
        )
    if len(selected) < config.batch_size:
        raise DataError(
            f"train.batch_size = {config.batch_size}, but there are {len(selected)} training "
            "images: lower it or add images"
        )
    width = table.image_features.shape[1]
    if width != embed_dim:
        raise DataError(
            f"the features are {width} wide, those of this CLIP {embed_dim}: run the features "
            "stage again with this CLIP"
        )
