"""Stage register: the trained generator becomes a model version, and the gate decides.

It has side effects in MLflow and therefore stands outside the DVC graph, whose cache would skip
them; it is idempotent instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from clipgan.config import RegisterConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.protocol import MetricValue, compare_values
from clipgan.evaluation.report import EVALUATION_FILE, TRAINED, load_evaluation
from clipgan.generation.sampler import load_matching_clip
from clipgan.models.bundle import load_bundle_info
from clipgan.tracking.gate import Comparison
from clipgan.tracking.mlflow_run import read_run_id
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.registry import RegistrationReport, register_model

SAMPLER_LOADER = "clipgan.generation.sampler:load_sampler"
RUN_FILE = "mlflow.json"
BUILT_IN = "built-in"


def register(
    config: RegisterConfig,
    *,
    training: Path,
    evaluation: Path,
    tracking_uri: str,
    experiment: str,
    clip_weights: str,
) -> RegistrationReport:
    """Register the bundle in ``training`` with the values in ``evaluation``.

    Args:
        training: the train stage's folder: generator bundle and mlflow.json.
        evaluation: the evaluate stage's folder: evaluation.json.
        tracking_uri: the MLflow store.
        experiment: where a run is made if the store lacks the training's.
        clip_weights: ``features.clip_weights``; other than the built-in weights are copied into the
            model, so that it can be served without a network.

    Raises:
        EvaluationError, CheckpointError: evaluation or bundle is missing or damaged.
        ClipError: the CLIP's weights are not those of the training.
        RegistryError: mlflow.json is missing or damaged, the evaluation lacks the gate's metric, or
            the store cannot be used.
    """
    evaluated = load_evaluation(evaluation)
    trained = evaluated.values[TRAINED]
    return register_model(
        config,
        GeneratorPackage(training, SAMPLER_LOADER, find_clip_weights(training, clip_weights)),
        evaluation={
            TRAINED: {name: value.model_dump(mode="json") for name, value in trained.items()},
            "skipped": dict(evaluated.skipped),
        },
        source=str(evaluation / EVALUATION_FILE),
        run_id=read_run_id(training / RUN_FILE),
        tracking_uri=tracking_uri,
        experiment=experiment,
        compare=compare_entries,
    )


def find_clip_weights(training: Path, clip_weights: str) -> Path | None:
    """The file or folder of the CLIP's weights to copy; None for the built-in ones.

    Loaded once from there and compared with the bundle: a weights file alone may give another
    activation than its open_clip tag, and that must not show up first where the model is served.

    Raises:
        ClipError: unknown weights, or not those of the training.
    """
    if clip_weights == BUILT_IN:
        return None
    from clipgan.clip.weights import find_tag_file

    fingerprint = load_bundle_info(training).clip
    path = Path(clip_weights)
    if not path.exists():
        path = find_tag_file(fingerprint.get("model", ""), clip_weights)
    load_matching_clip(fingerprint, str(path), torch.device("cpu"))
    return path


def compare_entries(challenger: Mapping[str, Any], champion: Mapping[str, Any]) -> Comparison | str:
    """Challenger minus champion, paired by the captions and latents both were measured on."""
    try:
        values = [MetricValue.model_validate(entry) for entry in (challenger, champion)]
    except ValidationError:
        return "one value is of another program version"
    try:
        found = compare_values(*values)
    except EvaluationError as error:
        return str(error)
    return Comparison(found.difference, found.bounds.low, found.bounds.high)
