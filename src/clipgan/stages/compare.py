"""Models by address, measured side by side on the same captions, latents and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clipgan.artifacts import built_folder, write_json
from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.report.pictures import Pictures
from clipgan.evaluation.report.writing import write_report
from clipgan.evaluation.study.protocols import find_protocol
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.metrics.comparison import ModelComparison, compare_models
from clipgan.metrics.evaluations import TRAINED, Evaluation, save_evaluation
from clipgan.run_logger import NULL_LOGGER, RunLogger, UnfailingRunLogger, log_files
from clipgan.stages.measurements import Measurements
from clipgan.stages.model_sources import ModelLoader

COMPARISON_FILE = "comparison.json"
LOGGED_FOLDER = "comparison"


@dataclass(frozen=True)
class ComparisonReport:
    """What was measured, and every model but the first against the first."""

    evaluation: Evaluation
    comparisons: list[ModelComparison]


def measure_models(
    config: EvaluateConfig,
    addresses: Sequence[str],
    *,
    protocols: Sequence[str],
    loader: ModelLoader,
    images: Path,
    output: Path,
    cache: Path | None,
    device: torch.device,
    logger: RunLogger = NULL_LOGGER,
) -> ComparisonReport:
    """Measure models and write a folder with values, report and pictures.

    Args:
        config: section ``evaluate``.
        addresses: of one model or more, see :mod:`clipgan.stages.model_sources`; the first is what
            the others are compared with.
        protocols: names.
        images: image shards of the project.
        output: folder to make or replace.
        cache: folder for features of real images.
        logger: receives the files.

    Raises:
        EvaluationError: an address stands there twice, models of different sizes, or see
            :meth:`Measurements.measure`.
        CheckpointError, RegistryError, ClipError: a model cannot be loaded.
    """
    for address in addresses:
        if addresses.count(address) > 1:
            raise EvaluationError(f"{address} stands there twice: name different models")
    recipes = [find_protocol(name, config) for name in protocols]
    alone = len(addresses) == 1
    models = {TRAINED if alone else address: loader.load(address) for address in addresses}
    measured = Measurements(config, images, models, device, FeatureCache(cache))
    for recipe in recipes:
        measured.measure(recipe)
    baseline = None if alone else addresses[0]
    comparisons = compare_models(measured.values, baseline)
    evaluation = Evaluation(
        measured.values,
        measured.skipped,
        tuple(measured.warnings),
        measured.texts,
        title=f"Evaluation of {addresses[0]}" if alone else "Comparison of models",
        baseline=baseline,
    )
    with built_folder(output) as building:
        save_evaluation(building, evaluation)
        tree = [comparison.to_tree() for comparison in comparisons]
        write_json(building / COMPARISON_FILE, {"models": list(addresses), "metrics": tree})
        write_report(building, evaluation, measured.pictures or Pictures())
    log_files(UnfailingRunLogger(logger), output, LOGGED_FOLDER)
    return ComparisonReport(evaluation, comparisons)
