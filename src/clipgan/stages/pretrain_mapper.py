"""Stage pretrain_mapper: CLIP features of captioned images -> LAFITE-NN's noise mapper.

It stands in recipes/dvc.yaml, because ``train`` may start without its result
(``train.pseudo_text.kind: mapper``, ``mapper: data/mapper``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipgan.artifacts import built_folder, hash_file, hash_json
from clipgan.clip.feature_store import MANIFEST, FeatureTable, load_features
from clipgan.config import PretrainMapperConfig
from clipgan.config.effective import select_small_recipe
from clipgan.data.shards import load_manifest
from clipgan.devices import resolve_device
from clipgan.models.noise_mapper import save_mapper
from clipgan.pretraining.mapper import (
    CaptionedFeatures,
    MapperTraining,
    compute_mapper_metrics,
)
from clipgan.resume_state import remove_folder
from clipgan.source_code import hash_sources
from clipgan.training.caption_budget import choose_captioned
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.inputs import select_training_images
from clipgan.training.resumable import StepLoop

KEPT_CHECKPOINTS = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapperReport:
    """Data and figures of a trained mapper; ``metrics`` has the splits that contain pairs."""

    num_images: int
    resumed_from: int | None
    metrics: dict[str, dict[str, float]]


def pretrain_mapper(
    config: PretrainMapperConfig, *, images: Path, features: Path, output: Path, work: Path
) -> MapperReport:
    """Train the mapper, or continue an interrupted run.

    Args:
        config: section ``pretrain_mapper``.
        images, features: artifacts of the stages before, of which the captioned images of the
            training split are used.
        output: folder to make or replace.
        work: parent of the resumable state, which is removed on success.

    Raises:
        DataError: too few captioned images; FeatureStoreError, CheckpointError: inputs or state are
            damaged or do not fit.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    manifest = load_manifest(images)
    table = load_features(features, images_fingerprint=manifest.fingerprint)
    training = select_training_images(images, table)
    pairs = _select_pairs(config, table, training)
    recipe = select_small_recipe(config)
    provenance = {**recipe, "features": hash_file(features / MANIFEST)}
    # The code is part of the state's name alone, because other code may make the same mapper.
    fingerprint = hash_json([provenance, hash_sources("clipgan.stages.pretrain_mapper")])
    folder = work / fingerprint[:16]
    device = resolve_device(config.device)
    run = MapperTraining(config, pairs, device)
    resumed_from = StepLoop(
        "noise mapper",
        run,
        total_steps=config.steps,
        checkpoint_interval_steps=config.checkpoint_interval_steps,
        checkpoints=CheckpointStore(folder, keep=KEPT_CHECKPOINTS, fingerprint=fingerprint),
        device=device,
    ).run()
    run.mapper.eval().requires_grad_(False)
    validation = np.setdiff1d(np.arange(len(table.sample_ids)), training)
    metrics = {
        name: compute_mapper_metrics(run.mapper, CaptionedFeatures.select(table, rows), config)
        for name, rows in (("train", training), ("validation", validation))
    }
    metrics = {name: figures for name, figures in metrics.items() if figures}
    for name, figures in metrics.items():
        logger.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in figures.items()))
    with built_folder(output) as building:
        save_mapper(building, run.mapper, clip=table.clip, recipe=provenance, metrics=metrics)
    remove_folder(folder)
    return MapperReport(pairs.num_images, resumed_from, metrics)


def _select_pairs(
    config: PretrainMapperConfig, table: FeatureTable, training: NDArray[np.int64]
) -> CaptionedFeatures:
    chosen = choose_captioned(
        [table.sample_ids[row] for row in training],
        np.diff(table.caption_offsets)[training],
        config.caption_fraction,
        config.seed,
    )
    return CaptionedFeatures.select(table, training[chosen])
