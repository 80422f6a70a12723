"""The parameters that decide a stage's result: those that it reads.

They decide what DVC calls stale, the names of resume folders and the parameters of MLflow runs.
Left out are keys that another choice switches off (the other family's, the quality of a JPEG where
PNG is stored) and ``device``, whose ``auto`` differs from machine to machine; artifacts record the
device. Batch sizes stay, because they change the last bits. A key that this module does not name
counts, so that a forgotten one costs a repetition and never a wrong result.
"""

from __future__ import annotations

from typing import Any

from clipgan.config.evaluation import EvaluateConfig
from clipgan.config.sections import (
    FeaturesConfig,
    IngestConfig,
    PretrainClipConfig,
    PretrainGeneratorConfig,
    PretrainMapperConfig,
    load_source_registry,
)
from clipgan.config.training import TrainConfig
from clipgan.families.registry import FAMILIES

_ADA_KEYS = ("ada_target", "ada_interval_steps", "ada_kimg")

Parameters = dict[str, Any]


def select_ingest(config: IngestConfig) -> Parameters:
    """Section ``ingest``. Where the images lie does not count: the scan says what is there."""
    source = load_source_registry().SOURCES[config.source]
    selected = _dump(config)
    _drop(selected, *(config.source_keys.keys() - source.model_fields.keys()), *source.places)
    if config.encoding == "png":
        del selected["jpeg_quality"]
    return selected


def select_features(config: FeaturesConfig) -> Parameters:
    """Section ``features``."""
    return _dump(config, "device")


def select_training(config: TrainConfig) -> Parameters:
    """Section ``train``: the shared keys and the section of its family."""
    selected = _dump(config, "device", *FAMILIES) | {config.family: config.section.select(config)}
    if config.augmentation.kind != "diffaugment":
        del selected["augmentation"]["policies"]
    if config.augmentation.kind != "ada":
        _drop(selected["augmentation"], *_ADA_KEYS)
    if not config.ema.snapshot_interval_images:
        del selected["ema"]["snapshot_sigmas"]
    if config.warm_up_loss != "drifting":
        del selected["drifting"]
    unread = "noise_level" if config.pseudo_text.kind == "mapper" else "mapper"
    del selected["pseudo_text"][unread]
    return selected


def select_evaluation(config: EvaluateConfig) -> Parameters:
    """Section ``evaluate``."""
    selected = _dump(config, "device")
    if config.judge_clip_model == "none":
        del selected["judge_clip_weights"]
    return selected


def select_warm_up(config: PretrainGeneratorConfig, train: TrainConfig) -> Parameters:
    """Section ``pretrain_generator``, and what it takes from ``train``: not how that starts, nor
    how long it goes on."""
    shared = select_training(train)
    _drop(shared, "initial_weights", "total_images", "warm_up_images", "batch_size")
    return {**config.model_dump(mode="json"), "train": shared}


def select_small_recipe(config: PretrainMapperConfig | PretrainClipConfig) -> Parameters:
    """Section ``pretrain_mapper`` or ``pretrain_clip``."""
    return config.model_dump(mode="json", exclude={"device", "checkpoint_interval_steps"})


def _dump(
    config: IngestConfig | FeaturesConfig | TrainConfig | EvaluateConfig, *unread: str
) -> Parameters:
    return config.model_dump(mode="json", exclude=set(unread))


def _drop(selected: Parameters, *keys: str) -> None:
    for key in keys:
        del selected[key]
