"""Comparison of a folder of images with another by distances, without generator and captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from clipgan.config import EvaluateConfig, IngestConfig
from clipgan.devices import resolve_device
from clipgan.errors import EvaluationError
from clipgan.evaluation.study.driver import Driver, ImageSource
from clipgan.evaluation.study.folder_study import build_folder_study
from clipgan.evaluation.study.image_folder import ImageFolder, check_folder
from clipgan.evaluation.study.protocols import EvaluationProtocol, find_protocol, key_metric
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.metrics.evaluations import TRAINED, Evaluation
from clipgan.metrics.values import MetricValue
from clipgan.progress import progress_bar


def evaluate_folder(
    config: EvaluateConfig,
    *,
    reading: IngestConfig,
    generated: Path,
    reference: Path,
    protocols: tuple[str, ...],
    cache: Path | None,
) -> Evaluation:
    """Compute every distance between two folders in the protocols' feature spaces.

    Args:
        config: section ``evaluate``.
        reading: section ``ingest``, whose rules for reading files apply here too.
        generated, reference: folders of image files.
        protocols: names of protocols, whose spaces and settings are used, but not their captions.
        cache: folder for features of the reference; None: none are stored.

    Raises:
        EvaluationError: a folder contains no usable image, a strict protocol asks for more
            images, no feature space is available, or all images look the same.
    """
    for folder in (generated, reference):
        check_folder(folder)  # both are checked before one is read
    sets = ImageFolder(generated, reading), ImageFolder(reference, reading)
    device = resolve_device(config.device)
    values: dict[str, MetricValue] = {}
    skipped: dict[str, str] = {}
    warnings = [warning for images in sets for warning in images.list_warnings()]
    for name in protocols:
        protocol = find_protocol(name, config)
        _check_count(protocol, sets[0])
        study = build_folder_study(
            config, protocol, *sets, device=device, cache=FeatureCache(cache)
        )
        with progress_bar(f"evaluate {generated.name}", len(sets[0]), "images") as bar:
            driver = Driver(study, bar.advance)
            source = _read(sets[0], config.batch_size)
            measured = driver.measure(source).values if study.references else {}
        values |= {key_metric(name, metric): value for metric, value in measured.items()}
        skipped |= {key_metric(name, metric): why for metric, why in driver.skipped.items()}
        warnings += [warning for warning in study.warnings if warning not in warnings]
    if not values:
        raise EvaluationError(f"nothing could be measured: {next(iter(skipped.values()))}")
    title = f"{generated.name} against {reference.name}"
    return Evaluation({TRAINED: values}, skipped, tuple(warnings), title=title)


def _read(images: ImageFolder, batch_size: int) -> ImageSource:
    def generate(names: object) -> Iterator[Tensor]:
        del names  # all files are read in their order
        return images.iterate(batch_size)

    return ImageSource(generate)


def _check_count(protocol: EvaluationProtocol, images: ImageFolder) -> None:
    wanted = protocol.num_generated
    if protocol.is_strict and wanted is not None and len(images) < wanted:
        raise EvaluationError(
            f"protocol {protocol.name} asks for {wanted:,} generated images, {images.folder} has "
            f"{len(images):,}: make more, or use a protocol based on it in "
            "evaluate.custom_protocols"
        )
