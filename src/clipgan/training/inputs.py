"""Images and features of the training split, checked against the parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipgan import schemas
from clipgan.clip.feature_store import FeatureTable
from clipgan.config import TrainConfig
from clipgan.data.batches import TrainingData, build_image_cache
from clipgan.data.shards import ImagesManifest, iterate_tables
from clipgan.errors import DataError


def select_training_images(images: Path, table: FeatureTable) -> NDArray[np.int64]:
    """Rows of the feature table that belong to the training split, in its order."""
    columns = iterate_tables(images, [schemas.SAMPLE_ID], split=schemas.TRAIN)
    training = {sample_id for part in columns for sample_id in part[schemas.SAMPLE_ID].to_pylist()}
    return np.flatnonzero([sample_id in training for sample_id in table.sample_ids])


def load_training_data(
    config: TrainConfig,
    images: Path,
    table: FeatureTable,
    selected: NDArray[np.int64],
    run_folder: Path,
) -> TrainingData:
    """Images (cached, memory-mapped, in ``run_folder``) and features of the selected rows."""
    offsets = table.caption_offsets
    counts = np.diff(offsets)[selected]
    rows = [np.arange(offsets[i], offsets[i + 1]) for i in selected]
    return TrainingData(
        images_uint8=build_image_cache(
            images,
            [table.sample_ids[i] for i in selected],
            config.resolution_px,
            run_folder / "images",
        ),
        image_features=table.image_features[selected],
        text_features=table.text_features[np.concatenate(rows)],
        caption_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


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
            f"the features are {width} wide, CLIP gives {embed_dim}: run the features stage "
            "again with this CLIP"
        )
    captions = np.diff(table.caption_offsets)[selected]
    missing = int((captions == 0).sum())
    if missing and config.pseudo_text.pseudo_text_probability < 1:
        raise DataError(
            f"{missing:,} of {len(selected):,} training images have no caption, and "
            "train.pseudo_text.pseudo_text_probability = "
            f"{config.pseudo_text.pseudo_text_probability} needs captions: set it to 1.0 "
            "(language-free), or caption them"
        )
