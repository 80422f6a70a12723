"""Stage evaluate: a generator bundle -> metric values with protocols, and pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from clipgan.artifacts import built_folder
from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.clip.feature_store import load_features
from clipgan.config import EvaluateConfig, FeaturesConfig
from clipgan.data.shards import load_manifest
from clipgan.devices import resolve_device
from clipgan.evaluation.report.pictures import Pictures, save_pictures
from clipgan.evaluation.spaces.feature_spaces import TrainingClip
from clipgan.evaluation.study.protocols import find_protocol
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.metrics.evaluations import (
    EVALUATION_FILE,
    INITIAL,
    TRAINED,
    Evaluation,
    save_evaluation,
)
from clipgan.metrics.values import MetricValue, flatten_metrics
from clipgan.models.bundle import (
    BundleInfo,
    GeneratorBundle,
    check_bundle_fits,
    load_bundle,
    load_bundle_info,
)
from clipgan.run_logger import NULL_LOGGER, RunLogger, UnfailingRunLogger
from clipgan.stages.measurements import Measurements, ModelUnderTest
from clipgan.stages.stored_features import StoredFeatures, find_stored_conditions

INITIAL_FOLDER = "initial"
LOGGED_FOLDER = "evaluation"


def evaluate(
    config: EvaluateConfig,
    *,
    features_config: FeaturesConfig,
    training: Path,
    images: Path,
    features: Path,
    output: Path,
    cache: Path | None,
    clip: ClipEncoder | None = None,
    logger: RunLogger = NULL_LOGGER,
) -> Evaluation:
    """Measure the trained generator, the one it started from, and real images in their place.

    Args:
        config: section ``evaluate``.
        features_config: names the CLIP, unless ``clip`` is given.
        training: the train stage's folder; its ``initial/`` is compared where there is one.
        images, features: artifacts of the stages before.
        output: folder to make or replace.
        cache: folder for features of real images, shared between runs; None: none are stored.
        clip: the encoder the generator was trained with.
        logger: receives metrics (initial ones at 0 images seen) and evaluation.json.

    Raises:
        CheckpointError, DataError, FeatureStoreError, ClipError: inputs are damaged or do not fit.
        EvaluationError: an unknown protocol, an empty split, a collapsed generator, or NaN in
            features.
    """
    protocols = [find_protocol(name, config) for name in config.protocols]
    bundles = _load_bundles(config, training)
    inputs = load_evaluation_inputs(
        config, features_config, images=images, features=features, clip=clip
    )
    models = {name: inputs.describe_model(bundle) for name, bundle in bundles.items()}
    measured = Measurements(config, images, models, inputs.device, FeatureCache(cache))
    measured.warnings += _enlarge_initial(models)
    for protocol in protocols:
        measured.measure(protocol)
    images_seen = _count_images_seen(training, bundles[TRAINED].info)
    evaluation = Evaluation(
        measured.values,
        measured.skipped,
        tuple(measured.warnings),
        measured.texts,
        title=f"Evaluation after {images_seen:,} images",
        baseline=INITIAL if INITIAL in measured.values else None,
        images_seen=images_seen,
    )
    with built_folder(output) as building:
        save_evaluation(building, evaluation)
        save_pictures(building, measured.pictures or Pictures())
    _log(UnfailingRunLogger(logger), measured.values, images_seen, output)
    return evaluation


@dataclass(frozen=True)
class EvaluationInputs:
    """Features and CLIP of one project, and the device to measure on."""

    encoder: ClipEncoder
    clip: TrainingClip
    stored: StoredFeatures
    device: torch.device

    def describe_model(self, bundle: GeneratorBundle) -> ModelUnderTest:
        """Combine a generator with the stored features that it takes.

        Raises:
            CheckpointError: it was trained with another CLIP.
            ClipError, ConfigError: it draws through a ViT that this CLIP does not have.
        """
        precision = {"precision": bundle.info.clip.get("precision", "")}
        check_bundle_fits(bundle.info, clip={**self.clip.fingerprint, **precision})
        bundle.generator.attach_clip(self.encoder)
        conditions = find_stored_conditions(bundle, self.stored, self.encoder)
        return ModelUnderTest(bundle, self.clip, self.stored.find, conditions)


def load_evaluation_inputs(
    config: EvaluateConfig,
    features_config: FeaturesConfig,
    *,
    images: Path,
    features: Path,
    clip: ClipEncoder | None,
) -> EvaluationInputs:
    """Load features and CLIP of one project.

    Raises:
        DataError, FeatureStoreError, ClipError: one is damaged or does not fit.
    """
    device = resolve_device(config.device)
    if clip is None:
        clip = load_clip(
            features_config.clip_model,
            features_config.clip_weights,
            precision=features_config.precision,
            device=device,
        )
    # The encoder may run in another precision here than where the features were made.
    fingerprint = {**clip.fingerprint, "precision": features_config.precision}
    table = load_features(
        features,
        images_fingerprint=load_manifest(images).fingerprint,
        clip_fingerprint=fingerprint,
    )
    training_clip = TrainingClip(clip.encode_images, fingerprint)
    stored = StoredFeatures(table, config.prompts, clip.encode_texts)
    return EvaluationInputs(clip, training_clip, stored, device)


def _load_bundles(config: EvaluateConfig, training: Path) -> dict[str, GeneratorBundle]:
    bundles = {TRAINED: load_bundle(training, with_discriminator=False)}
    initial = training / INITIAL_FOLDER
    if config.compare_initial and initial.is_dir():
        bundles[INITIAL] = load_bundle(initial, with_discriminator=False)
    return bundles


def _enlarge_initial(models: dict[str, ModelUnderTest]) -> list[str]:
    """Enlarge the images of a start that training has grown, and return a warning that says so."""
    if INITIAL not in models or models[INITIAL].side_px == models[TRAINED].side_px:
        return []
    start, side = models[INITIAL], models[TRAINED].side_px
    models[INITIAL] = replace(start, enlarged_px=side)
    return [
        f"the generator before training makes images of {start.side_px} px: they are enlarged to "
        f"{side} px for every value and picture of it"
    ]


def _count_images_seen(training: Path, trained: BundleInfo) -> int:
    """Count the images seen in this training alone, over which its losses are drawn."""
    initial = training / INITIAL_FOLDER
    before = load_bundle_info(initial).images_seen if initial.is_dir() else 0
    return trained.images_seen - before


def _log(
    logger: RunLogger,
    values: dict[str, dict[str, MetricValue]],
    images_seen: int,
    folder: Path,
) -> None:
    for section, position in ((INITIAL, 0), (TRAINED, images_seen)):
        if numbers := flatten_metrics(values.get(section, {}), LOGGED_FOLDER):
            logger.log_metrics(numbers, position)
    logger.log_file(folder / EVALUATION_FILE, LOGGED_FOLDER)
    logger.flush()
