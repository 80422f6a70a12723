"""Stage pretrain_generator: a generator from random weights, by reconstruction at growing sizes.

It stands in recipes/dvc.yaml, because its result is a start for ``train``, as the built-in base
generator is. The layout of a picture is learned from small images at a tenth of the cost
(progressive growing, Karras et al. 2018), and each resolution starts from the blocks of the last.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from clipgan.artifacts import built_folder
from clipgan.clip.encoder import ClipEncoder
from clipgan.config import (
    FeaturesConfig,
    MonitoringConfig,
    PretrainGeneratorConfig,
    Threads,
    TrainConfig,
)
from clipgan.data.shards import load_manifest
from clipgan.errors import ConfigError
from clipgan.models.built_in import NO_WEIGHTS
from clipgan.models.bundle import BundleInfo, load_bundle_info
from clipgan.resume_state import remove_folder
from clipgan.stages.train import train
from clipgan.training.fine_tuning import resolve_initial_folder
from clipgan.training.fingerprint import compute_training_fingerprint

logger = logging.getLogger(__name__)


def pretrain_generator(
    config: PretrainGeneratorConfig,
    *,
    train_config: TrainConfig,
    monitoring: MonitoringConfig,
    features_config: FeaturesConfig,
    images: Path,
    features: Path,
    output: Path,
    work: Path,
    clip: ClipEncoder | None = None,
    threads: Threads | None = None,
) -> BundleInfo:
    """Warm up a new generator, or continue an interrupted run, and return the result's description.

    Args:
        config: section ``pretrain_generator``.
        train_config: section ``train``, for everything that ``config`` does not set.
        images, features: artifacts of the stages before.
        output: folder to make or replace, with the output of ``train`` at the last resolution.
        work: finished resolutions and the state of the running one; removed on success.
        threads: as for :func:`~clipgan.stages.train.train`.
        clip: the encoder that made the features.

    Raises:
        ConfigError: ``train`` has another last resolution, or there are several of a generator that
            does not grow.
        Others: see :func:`clipgan.stages.train.train`.
    """
    if not train_config.section.grows and len(config.resolutions_px) > 1:
        raise ConfigError(
            f"pretrain_generator.resolutions_px = {list(config.resolutions_px)}: the "
            f"generator of family {train_config.family} does not grow; name "
            f"{train_config.resolution_px} alone"
        )
    if config.resolutions_px[-1] != train_config.resolution_px:
        raise ConfigError(
            f"pretrain_generator.resolutions_px ends at {config.resolutions_px[-1]}, but "
            f"train.resolution_px = {train_config.resolution_px}: end with that"
        )
    start = NO_WEIGHTS
    for index, resolution_px in enumerate(config.resolutions_px):
        finished = work / f"{resolution_px}px"
        warm_up = build_warm_up(config, train_config, index, initial_weights=start)
        if _is_result_of(finished, warm_up, images, features):
            logger.info("generator at %d px: done before", resolution_px)
        else:
            logger.info("generator at %d px", resolution_px)
            train(
                warm_up,
                monitoring=monitoring,
                features_config=features_config,
                images=images,
                features=features,
                output=finished,
                work=work / "train",
                # Where train keeps them, too.
                image_store=work.parent / "images",
                clip=clip,
                threads=threads,
            )
            remove_folder(work / "train")
        start = str(finished)
    with built_folder(output) as building:
        shutil.copytree(start, building, dirs_exist_ok=True)
    remove_folder(work)
    return load_bundle_info(output)


def build_warm_up(
    config: PretrainGeneratorConfig,
    train_config: TrainConfig,
    index: int,
    *,
    initial_weights: str,
) -> TrainConfig:
    """Build section ``train`` of the resolution at ``index``, with reconstruction throughout."""
    tree = train_config.model_dump(mode="json")
    tree |= {
        "initial_weights": initial_weights,
        "resolution_px": config.resolutions_px[index],
        "total_images": config.images[index],
        "warm_up_images": config.images[index],
        "batch_size": config.batch_size,
        train_config.family: train_config.section.build_warm_up(
            learning_rate=config.learning_rates[index], beta1=config.beta1
        ),
    }
    tree["ema"]["half_life_kimg"] = config.half_life_kimg
    return type(train_config).model_validate(tree)


def _is_result_of(folder: Path, config: TrainConfig, images: Path, features: Path) -> bool:
    if not folder.exists():
        return False
    fingerprint = compute_training_fingerprint(
        config,
        images_fingerprint=load_manifest(images).fingerprint,
        features_dir=features,
        initial_folder=resolve_initial_folder(config.initial_weights, config.family),
    )
    return load_bundle_info(folder).provenance.get("training") == fingerprint
