"""Stage register: the trained generator becomes a model version, and the gate decides.

It has side effects in MLflow, which DVC's cache would skip, so it is not part of the DVC graph. It
is idempotent instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from clipgan.config import Params, RegisterConfig
from clipgan.errors import ClipganError
from clipgan.generation.sampler import load_matching_clip
from clipgan.metrics.evaluations import EVALUATION_FILE, load_evaluation
from clipgan.metrics.values import MetricValue
from clipgan.models.built_in import BUILT_IN
from clipgan.models.bundle import load_bundle_info
from clipgan.stages.champion import measure_version
from clipgan.stages.runs import send_waiting
from clipgan.tracking.gate import MeasureVersion
from clipgan.tracking.mlflow_run import read_run_id
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.registry import RegistrationReport, register_model
from clipgan.workspace import Workspace

SAMPLER_LOADER = "clipgan.generation.sampler:load_sampler"
RUN_FILE = "mlflow.json"


def register_generator(params: Params, workspace: Workspace, state: str) -> RegistrationReport:
    """Register what train and evaluate left in ``workspace``; see :func:`register`."""
    send_waiting(workspace)  # the version's run must be there first
    return register(
        params.register_model,
        training=workspace.training,
        evaluation=workspace.evaluation,
        tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
        clip_weights=params.features.clip_weights,
        state=state,
        measure=_build_measure(params, workspace),
    )


def register(
    config: RegisterConfig,
    *,
    training: Path,
    evaluation: Path,
    tracking_uri: str,
    clip_weights: str,
    state: str,
    measure: MeasureVersion,
) -> RegistrationReport:
    """Register the bundle in ``training`` with the values in ``evaluation``.

    Args:
        training: the train stage's folder: generator bundle and mlflow.json.
        evaluation: the evaluate stage's folder: evaluation.json.
        tracking_uri: the MLflow store.
        clip_weights: ``features.clip_weights``; other than the built-in weights are copied into the
            model, so that it can be served without a network.
        state: identity of everything that this registration depends on, stored with the version.
        measure: measures a champion again whose stored values cannot be compared.

    Raises:
        EvaluationError, CheckpointError: evaluation or bundle is missing or damaged.
        ClipError: the CLIP's weights are not those of the training.
        RegistryError: mlflow.json is missing or damaged, the evaluation lacks the gate's metric, or
            the store cannot be used.
    """
    return register_model(
        config,
        GeneratorPackage(training, SAMPLER_LOADER, find_clip_files(training, clip_weights)),
        load_evaluation(evaluation),
        source=str(evaluation / EVALUATION_FILE),
        run_id=read_run_id(training / RUN_FILE),
        state=state,
        tracking_uri=tracking_uri,
        measure=measure,
    )


def find_clip_files(training: Path, clip_weights: str) -> Path | None:
    """Find the file or folder of the CLIP's weights to copy; None for the built-in ones.

    The weights are loaded once and compared with the bundle, because a weights file alone may mean
    another activation than its open_clip tag, and serving must not be the first to notice.

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


def _build_measure(params: Params, workspace: Workspace) -> MeasureVersion:
    def measure(version: int, like: MetricValue) -> Mapping[str, MetricValue] | str:
        try:
            return measure_version(params, workspace, version, like.protocol.name)
        except ClipganError as error:
            return str(error)

    return measure
