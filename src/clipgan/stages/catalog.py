"""Stage names -> step functions, with their parameters and paths.

The one list of stages. Three callers go through it: ``clipgan stage NAME`` (dvc.yaml's commands),
the Prefect flows (through DVC) and the tests. A stage's heavy imports happen when it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipgan.config import Params, load_params
from clipgan.errors import ConfigError
from clipgan.run_logger import NULL_LOGGER, RunLogger
from clipgan.stages.resolution_check import check_resolutions, check_stored_size
from clipgan.stages.stage_threads import set_stage_threads
from clipgan.tracking.environment import resolve_tracking_uri


@dataclass(frozen=True)
class Workspace:
    """Every path of a project, by name."""

    root: Path

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    @property
    def dvc_lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def profiles(self) -> Path:
        return self.root / "profiles"

    @property
    def raw(self) -> Path:
        """Downloads, kept between runs."""
        return self.root / "data" / "raw"

    @property
    def source(self) -> Path:
        return self.root / "data" / "source.json"

    @property
    def settings(self) -> Path:
        """What decides each stage, one file a stage."""
        return self.root / "data" / "settings"

    @property
    def images(self) -> Path:
        return self.root / "data" / "images"

    @property
    def features(self) -> Path:
        return self.root / "data" / "features"

    @property
    def training(self) -> Path:
        return self.root / "data" / "training"

    @property
    def evaluation(self) -> Path:
        return self.root / "data" / "evaluation"

    @property
    def report(self) -> Path:
        return self.root / "data" / "report"

    @property
    def clip(self) -> Path:
        return self.root / "data" / "clip"

    @property
    def generator(self) -> Path:
        return self.root / "data" / "generator"

    @property
    def mapper(self) -> Path:
        return self.root / "data" / "mapper"

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    def work(self, stage: str) -> Path:
        """Resumable state of ``stage``: outside DVC, ignored by git."""
        return self.root / "data" / ".work" / stage

    @property
    def remembered(self) -> Path:
        """Content hashes of the source's files, by their looks."""
        return self.work("scan") / "contents.json"

    def relative(self, path: Path) -> str:
        """``path`` as dvc.yaml writes it."""
        return path.relative_to(self.root).as_posix()


def find_workspace(start: Path) -> Workspace:
    """The project that ``start`` lies in: the nearest folder upwards with a dvc.yaml.

    Raises:
        ConfigError: there is none.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "dvc.yaml").is_file():
            return Workspace(folder)
    raise ConfigError(
        f"{start}: no dvc.yaml here or above; change into your clone of the project and run again"
    )


@dataclass(frozen=True)
class Stage:
    """One step and its paths: ``inputs`` and ``outputs`` name attributes of :class:`Workspace`.

    Which parameters change its result: :mod:`clipgan.stages.settings`.
    """

    name: str
    summary: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[Params, Workspace], Any]


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
    from clipgan.stages.initial_weights import prepared_initial_weights
    from clipgan.stages.runs import open_run
    from clipgan.stages.train import train
    from clipgan.training.distributed import check_batch_fits, join_processes

    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(os.environ, params.train.device))
        # Before any run is made.
        check_batch_fits(params.train, processes)
        initial_folder = stack.enter_context(
            prepared_initial_weights(
                params.train.initial_weights,
                work=workspace.work("train"),
                tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
                family=params.train.family,
                processes=processes,
            )
        )
        logger: RunLogger = NULL_LOGGER
        if processes.is_lead:
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
        )


def _build_training_evaluation(params: Params, workspace: Workspace, logger: RunLogger) -> Any:
    # Processes other than the first have no run to write to.
    if not params.monitoring.evaluation_interval_images or logger is NULL_LOGGER:
        return None
    # Imported here: no edit of the evaluation's code may retrain anything.
    from clipgan.stages.training_evaluation import TrainingEvaluation

    return TrainingEvaluation(
        params.evaluate,
        features_config=params.features,
        images=workspace.images,
        features=workspace.features,
        cache=workspace.work("evaluate"),
        run_logger=logger,
    )


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


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("scan", "what the source offers now", (), ("source",), _scan),
        Stage("settings", "what decides each stage now", (), ("settings",), _settings),
        Stage("ingest", "images and captions -> shards", ("source",), ("images",), _ingest),
        Stage("features", "shards -> CLIP features", ("images",), ("features",), _features),
        Stage(
            "train",
            "shards and features -> generator",
            ("images", "features"),
            ("training",),
            _train,
        ),
        Stage(
            "evaluate",
            "generator -> metric values and pictures",
            ("images", "features", "training"),
            ("evaluation",),
            _evaluate,
        ),
        Stage("report", "values -> page, sheets", ("training", "evaluation"), ("report",), _report),
        Stage(
            "pretrain_generator",
            "shards and features -> a generator to start from",
            ("images", "features"),
            ("generator",),
            _pretrain_generator,
        ),
        Stage(
            "pretrain_mapper",
            "features of captioned images -> noise mapper",
            ("images", "features"),
            ("mapper",),
            _pretrain_mapper,
        ),
        Stage("pretrain_clip", "shards -> built-in CLIP", ("images",), ("clip",), _pretrain_clip),
    )
}
"""In the order of the data; the ``pretrain_`` stages are recipes of their own, outside dvc.yaml."""


def run_stage(name: str, workspace: Workspace) -> Any:
    """Run the stage ``name`` with the params.yaml of ``workspace``; gives its report.

    Raises:
        ConfigError: no such stage, or a parameter is wrong.
    """
    if name not in STAGES:
        raise ConfigError(f"{name} is no stage: choose one of {', '.join(STAGES)}")
    params = load_params(workspace.params_file)
    if name == "train":
        check_resolutions(params, workspace.root)
    elif not name.startswith("pretrain_"):  # recipes of their own
        # Without the start: `clipgan pretrain-generator` runs stages before there is one that fits.
        check_stored_size(params)
    with set_stage_threads(name, params.threads):
        return STAGES[name].run(params, workspace)
