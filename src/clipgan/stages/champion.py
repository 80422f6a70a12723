"""Measurement of a registered version on the data and the protocol of today."""

from __future__ import annotations

from clipgan.config import Params
from clipgan.errors import EvaluationError
from clipgan.evaluation.study.protocols import find_protocol
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.metrics.evaluations import TRAINED
from clipgan.metrics.values import MetricValue
from clipgan.models.bundle import load_bundle_info
from clipgan.stages.measurements import Measurements
from clipgan.stages.model_sources import ModelLoader
from clipgan.stages.stage_threads import set_stage_threads
from clipgan.workspace import Workspace


def measure_version(
    params: Params, workspace: Workspace, version: int, protocol: str
) -> dict[str, MetricValue]:
    """Measure a registered version on today's data, as the evaluate stage would.

    Args:
        protocol: name of a protocol.

    Raises:
        RegistryError: the version's files do not exist any more.
        EvaluationError: no such protocol, or it draws images of another size than the generator in
            ``data/training``.
        CheckpointError, ClipError, DataError: it or the data cannot be loaded.
    """
    name = params.register_model.model_name
    recipe = find_protocol(protocol, params.evaluate)
    loader = ModelLoader.of_project(params, workspace)
    model = loader.load(f"models:/{name}/{version}")
    side, ours = model.bundle.info.resolution_px, load_bundle_info(workspace.training).resolution_px
    if side != ours:
        raise EvaluationError(f"it draws images of {side} px, the new generator {ours} px")
    cache = FeatureCache(workspace.work("evaluate"))
    measured = Measurements(
        params.evaluate, workspace.images, {TRAINED: model}, loader.device, cache
    )
    with set_stage_threads("evaluate", params.threads):
        measured.measure(recipe)
    return measured.values[TRAINED]
