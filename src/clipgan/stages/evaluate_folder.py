"""A folder of images against a folder of images: distances alone, no generator and no captions."""

from __future__ import annotations

from pathlib import Path

import torch

from clipgan.config import EvaluateConfig, IngestConfig
from clipgan.devices import resolve_device
from clipgan.errors import EvaluationError
from clipgan.evaluation.extraction import FeatureCollector
from clipgan.evaluation.feature_spaces import FeatureSpace, find_space, name_metric_of
from clipgan.evaluation.image_folder import ImageFolder, check_folder
from clipgan.evaluation.memorisation import find_nearest_training
from clipgan.evaluation.protocols import EvaluationProtocol, find_protocol, key_metric
from clipgan.evaluation.records import find_kind
from clipgan.evaluation.reference_cache import FeatureCache, Tensors, describe_features
from clipgan.evaluation.space_metrics import Measured, SpaceFeatures, SpaceJudge
from clipgan.metrics.evaluations import TRAINED, Evaluation
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.values import MetricValue, Protocol, build_value
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
    """Every distance of the protocols' feature spaces between two folders.

    Args:
        config: section ``evaluate``.
        reading: section ``ingest``, whose rules of reading hold here too.
        generated, reference: folders of image files.
        protocols: names; their spaces and settings count, their captions cannot.
        cache: folder for features of the reference; None: none are kept.

    Raises:
        EvaluationError: a folder holds no usable image, a strict protocol asks for more
            images, no feature space can be had, or all images look the same.
    """
    for folder in (generated, reference):
        check_folder(folder)  # both, before either is read
    sets = ImageFolder(generated, reading), ImageFolder(reference, reading)
    device = resolve_device(config.device)
    values: dict[str, MetricValue] = {}
    skipped: dict[str, str] = {}
    warnings = [warning for images in sets for warning in images.list_warnings()]
    for name in protocols:
        protocol = find_protocol(name, config)
        _check_count(protocol, sets[0], "generated")
        measured = _FolderMeasurement(
            config, protocol, *sets, device=device, cache=FeatureCache(cache)
        )
        measured.measure()
        values |= {key_metric(name, metric): value for metric, value in measured.values.items()}
        skipped |= {key_metric(name, metric): why for metric, why in measured.skipped.items()}
        warnings += [warning for warning in measured.warnings if warning not in warnings]
    if not values:
        raise EvaluationError(f"nothing could be measured: {next(iter(skipped.values()))}")
    title = f"{generated.name} against {reference.name}"
    return Evaluation({TRAINED: values}, skipped, tuple(warnings), title=title)


class _FolderMeasurement:
    """Values of one protocol."""

    def __init__(
        self,
        config: EvaluateConfig,
        protocol: EvaluationProtocol,
        generated: ImageFolder,
        reference: ImageFolder,
        *,
        device: torch.device,
        cache: FeatureCache,
    ) -> None:
        self._config, self._protocol = config, protocol
        self._generated, self._reference = generated, reference
        self._device, self._cache = device, cache
        self.values: dict[str, MetricValue] = {}
        self.skipped: dict[str, str] = {}
        self.warnings: list[str] = []

    def measure(self) -> None:
        """Fill values, skipped and warnings."""
        for spec in self._protocol.spaces:
            space = find_space(spec, self._device, None)
            if isinstance(space, str):
                self.skipped[name_metric_of(spec)] = space
            else:
                self._measure_in(space)

    def _measure_in(self, space: FeatureSpace) -> None:
        count = len(self._generated)
        judge = SpaceJudge(space, self._load_reference(space), self._protocol)
        self.skipped |= judge.find_skipped(count)
        generated = self._extract(space, self._generated)
        grouping = Grouping(count, self._config.interval_groups, self._protocol.seed)
        found = judge.measure(generated, grouping)
        nearest = find_nearest_training(generated.plain, judge.reference.plain)
        memorised = Measured(grouping.average(nearest.memorised), {})
        found[space.name_metric("memorised_share")] = memorised
        for name, measured in found.items():
            protocol = self._describe(name, space, measured.settings)
            value = build_value(
                measured.estimate, protocol, self._config.confidence, **find_kind(name)
            )
            self.values[name] = value
        fewest, dimensions = min(count, len(self._reference)), generated.plain.shape[1]
        if fewest <= dimensions:
            self.warnings.append(
                f"{space.name_metric('fd')} is fitted to {fewest:,} images in {dimensions:,} "
                f"dimensions and therefore biased upwards: trust {space.name_metric('kid')}, "
                "which is unbiased"
            )

    def _load_reference(self, space: FeatureSpace) -> SpaceFeatures:
        key = describe_features(
            images_fingerprint=self._reference.fingerprint,
            sample_ids=self._reference.hashes,
            resolution_px=0,
            space=space,
            transform=f"{self._reference.transform}, blurred {list(self._protocol.blur_radii_px)}",
            device=self._device,
        )

        def compute() -> Tensors:
            found = self._extract(space, self._reference)
            blurred = {f"blur{radius}": part for radius, part in (found.blurred or {}).items()}
            return {"plain": found.plain, **blurred}

        tensors = self._cache.fetch(key, compute)
        radii = self._protocol.blur_radii_px
        return SpaceFeatures(
            tensors["plain"], None, {radius: tensors[f"blur{radius}"] for radius in radii}
        )

    def _extract(self, space: FeatureSpace, images: ImageFolder) -> SpaceFeatures:
        collector = FeatureCollector(
            space,
            self._protocol.blur_radii_px,
            batch_size=self._config.batch_size,
            device=self._device,
        )
        with progress_bar(f"{images.folder.name} in {space.spec}", len(images), "images") as bar:
            for batch in images.iterate(self._config.batch_size):
                collector.add(batch)
                bar.advance(len(batch))
        return collector.collect(str(images.folder))

    def _describe(self, metric: str, space: FeatureSpace, settings: dict[str, int]) -> Protocol:
        return Protocol(
            metric=metric,
            extractor=space.extractor,
            extractor_sha256=space.weights_sha256,
            independent=True,
            reference_split="files",
            reference="all images of a folder",
            reference_count=len(self._reference),
            reference_fingerprint=self._reference.fingerprint,
            generated_count=len(self._generated),
            captions="unknown: files",
            seed=self._protocol.seed,
            resize=f"files as they are, then {space.resize}",
            truncation=None,
            clip=None if space.clip is None else dict(space.clip),
            settings=settings,
            name=self._protocol.name,
        )


def _check_count(protocol: EvaluationProtocol, images: ImageFolder, what: str) -> None:
    wanted = protocol.num_generated
    if protocol.is_strict and wanted is not None and len(images) < wanted:
        raise EvaluationError(
            f"protocol {protocol.name} asks for {wanted:,} {what} images, {images.folder} has "
            f"{len(images):,}: make more, or use a protocol based on it in "
            "evaluate.custom_protocols"
        )
