"""Measurement of models by address on the same captions, latents and reference images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipgan.artifacts import built_folder, write_json
from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.report.pictures import Pictures
from clipgan.evaluation.report.writing import write_report
from clipgan.evaluation.study.protocols import find_protocol
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.metrics.comparison import compare_models
from clipgan.metrics.evaluations import TRAINED, Evaluation, save_evaluation
from clipgan.run_logger import NULL_LOGGER, RunLogger, UnfailingRunLogger, log_files
from clipgan.stages.measurements import Measurements
from clipgan.stages.model_sources import ModelLoader

COMPARISON_FILE = "comparison.json"
LOGGED_FOLDER = "comparison"


def measure_models(
    config: EvaluateConfig,
    addresses: Sequence[str],
    *,
    protocols: Sequence[str],
    loader: ModelLoader,
    images: Path,
    output: Path,
    cache: Path | None,
    logger: RunLogger = NULL_LOGGER,
) -> Evaluation:
    """Measure models and write a folder with values, report and pictures.

    Args:
        config: section ``evaluate``.
        addresses: of one model or more, see :mod:`clipgan.stages.model_sources`; the others are
            compared with the first.
        protocols: names of protocols.
        images: image shards of the project.
        output: folder to make or replace.
        cache: folder for features of real images.
        logger: receives the files.

    Raises:
        EvaluationError: an address is given twice, or see :meth:`Measurements.measure`.
        CheckpointError, RegistryError, ClipError: a model cannot be loaded.
    """
    for address in addresses:
        if addresses.count(address) > 1:
            raise EvaluationError(f"{address} stands there twice: name different models")
    recipes = [find_protocol(name, config) for name in protocols]
    alone = len(addresses) == 1
    models = {TRAINED if alone else address: loader.load(address) for address in addresses}
    measured = Measurements(config, images, models, loader.device, FeatureCache(cache))
    for recipe in recipes:
        measured.measure(recipe)
    baseline = None if alone else addresses[0]
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
        tree = [one.to_tree() for one in compare_models(measured.values, baseline)]
        write_json(building / COMPARISON_FILE, {"models": list(addresses), "metrics": tree})
        write_report(building, evaluation, measured.pictures or Pictures())
    log_files(UnfailingRunLogger(logger), output, LOGGED_FOLDER)
    return evaluation
