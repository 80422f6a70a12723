"""What ``clipgan stage NAME`` calls: the function of each stage with its parameters and paths.

``dvc.yaml`` alone says what each stage depends on and what it makes. A stage's slow imports happen
when it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from clipgan.config import Params, load_params
from clipgan.errors import ConfigError
from clipgan.run_logger import NULL_LOGGER, RunLogger
from clipgan.stages.resolution_check import check_resolutions, check_stored_size
from clipgan.stages.stage_threads import set_stage_threads
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.workspace import Workspace


def _scan(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.scan import scan

    return scan(
        params.ingest, source=workspace.source, raw=workspace.raw, remembered=workspace.remembered
    )


def _settings(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.settings import write_settings

    uri = resolve_tracking_uri(workspace.root, os.environ)
    remembered = workspace.work("settings") / "contents.json"
    write_settings(params, workspace.settings, tracking_uri=uri, remembered=remembered)


def _ingest(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.ingest import ingest

    return ingest(
        params.ingest,
        images=workspace.images,
        raw=workspace.raw,
        work=workspace.work("ingest"),
        remembered=workspace.remembered,
    )


def _features(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.features import extract_features

    return extract_features(
        params.features,
        images=workspace.images,
        features=workspace.features,
        work=workspace.work("features"),
    )


def _train(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.model_addresses import opened_start
    from clipgan.stages.runs import open_run
    from clipgan.stages.train import train
    from clipgan.training.distributed import check_batch_fits, join_processes

    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(os.environ, params.train.device))
        # Checked before an MLflow run is made.
        check_batch_fits(params.train, processes)
        initial_folder = stack.enter_context(
            opened_start(
                params.train.initial_weights,
                work=workspace.work("train"),
                tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
                family=params.train.family,
                processes=processes,
            )
        )
        logger: RunLogger = NULL_LOGGER
        if processes.is_main:
            logger = stack.enter_context(open_run(params, workspace, initial_folder))
        return train(
            params.train,
            monitoring=params.monitoring,
            features_config=params.features,
            images=workspace.images,
            features=workspace.features,
            output=workspace.training,
            work=workspace.work("train"),
            initial_folder=initial_folder,
            logger=logger,
            processes=processes,
            threads=params.threads,
            evaluate=_build_training_evaluation(params, workspace, logger),
            diagnose=_build_announcer(params),
        )


def _build_training_evaluation(params: Params, workspace: Workspace, logger: RunLogger) -> Any:
    # Only the first process has a run to write to.
    if not params.monitoring.evaluation_interval_images or logger is NULL_LOGGER:
        return None
    # Imported here, because no edit of the evaluation's code may retrain anything.
    from clipgan.stages.training_evaluation import TrainingEvaluation

    return TrainingEvaluation(
        params.evaluate,
        features_config=params.features,
        images=workspace.images,
        features=workspace.features,
        cache=workspace.work("evaluate"),
        run_logger=logger,
    )


def _build_announcer(params: Params) -> Any:
    # Imported here: no edit of its words may retrain anything.
    from clipgan.evaluation.report.diagnosis import Announcer

    return Announcer(params.train.family)


def _evaluate(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.evaluate import evaluate
    from clipgan.stages.runs import reopen_run

    with reopen_run(params, workspace) as logger:
        return evaluate(
            params.evaluate,
            features_config=params.features,
            images=workspace.images,
            features=workspace.features,
            training=workspace.training,
            output=workspace.evaluation,
            cache=workspace.work("evaluate"),
            logger=logger,
        )


def _report(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.report import report
    from clipgan.stages.runs import reopen_run

    with reopen_run(params, workspace) as logger:
        return report(workspace.evaluation, workspace.training, workspace.report, logger)


def _pretrain_generator(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.pretrain_generator import pretrain_generator

    return pretrain_generator(
        params.pretrain_generator,
        train_config=params.train,
        monitoring=params.monitoring,
        features_config=params.features,
        images=workspace.images,
        features=workspace.features,
        output=workspace.generator,
        work=workspace.work("pretrain_generator"),
        threads=params.threads,
    )


def _pretrain_mapper(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.pretrain_mapper import pretrain_mapper

    return pretrain_mapper(
        params.pretrain_mapper,
        images=workspace.images,
        features=workspace.features,
        output=workspace.mapper,
        work=workspace.work("pretrain_mapper"),
    )


def _pretrain_clip(params: Params, workspace: Workspace) -> Any:
    from clipgan.stages.pretrain_clip import pretrain_clip

    return pretrain_clip(
        params.pretrain_clip,
        images=workspace.images,
        output=workspace.clip,
        work=workspace.work("pretrain_clip"),
    )


STAGES: dict[str, Callable[[Params, Workspace], Any]] = {
    "scan": _scan,
    "settings": _settings,
    "ingest": _ingest,
    "features": _features,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
    "pretrain_generator": _pretrain_generator,
    "pretrain_mapper": _pretrain_mapper,
    "pretrain_clip": _pretrain_clip,
}


def run_stage(name: str, workspace: Workspace) -> Any:
    """Run the stage ``name`` with the params.yaml of ``workspace`` and return its result.

    Raises:
        ConfigError: no such stage, or a parameter is wrong.
    """
    if name not in STAGES:
        raise ConfigError(f"{name} is no stage: choose one of {', '.join(STAGES)}")
    params = load_params(workspace.params_file)
    if name == "train":
        check_resolutions(params, workspace.root)
    elif not name.startswith("pretrain_"):  # recipes of their own
        # The start is not checked: `clipgan pretrain-generator` runs stages before there is one.
        check_stored_size(params)
    with set_stage_threads(name, params.threads):
        return STAGES[name](params, workspace)
