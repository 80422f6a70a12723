"""``clipgan evaluate SUBJECT`` and ``clipgan compare``: anything by its address, outside DVC."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clipgan.cli.generate import check_writable
from clipgan.config import Params
from clipgan.errors import ConfigError
from clipgan.stages.stage_threads import set_stage_threads
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.workspace import Workspace, open_project

REPORT = "report.html"


def describe_protocols() -> str:
    """Every protocol of this project, with all that each fixes.

    Raises:
        ConfigError, EvaluationError: params.yaml is wrong.
    """
    from clipgan.evaluation.study.protocols import format_protocols

    _, params = open_project()
    return format_protocols(params.evaluate)


def refuse_options(reference: Path | None, protocols: Sequence[str] | None) -> None:
    """The pipeline's evaluation takes everything from params.yaml.

    Raises:
        ConfigError: an option was given without a subject.
    """
    for name, value in (("--reference", reference), ("--protocol", protocols)):
        if value:
            raise ConfigError(f"{name} {value}: name what to evaluate too, such as built-in")


def evaluate_subject(
    subject: str, reference: Path | None, protocols: tuple[str, ...], out: Path
) -> str:
    """Evaluate a folder of images or a model into ``out``; returns the table to print.

    Raises:
        ConfigError: the options do not fit the subject, or ``out`` holds something else.
        EvaluationError, CheckpointError, RegistryError, ClipError: see the stages.
    """
    workspace, params = open_project()
    chosen = protocols or params.evaluate.protocols
    _check_output(out)
    with set_stage_threads("evaluate", params.threads):
        if reference is not None:
            return _evaluate_folder(params, workspace, Path(subject), reference, (chosen, out))
        _refuse_bare_images(subject)
        return _evaluate_model(params, workspace, subject, (chosen, out))


def _evaluate_model(
    params: Params, workspace: Workspace, subject: str, target: tuple[tuple[str, ...], Path]
) -> str:
    from clipgan.evaluation.report.page import format_report
    from clipgan.stages.compare import measure_models
    from clipgan.stages.model_sources import ModelLoader

    protocols, out = target
    evaluation = measure_models(
        params.evaluate,
        [subject],
        protocols=protocols,
        loader=ModelLoader.of_project(params, workspace),
        images=workspace.images,
        output=out,
        cache=workspace.work("evaluate"),
    )
    return f"{format_report(evaluation)}\n{out / REPORT}"


def compare_subjects(models: Sequence[str], protocols: tuple[str, ...], out: Path) -> str:
    """Measure models side by side into ``out``, and into an MLflow run; returns lines to print.

    Raises:
        ConfigError: fewer than two models, or ``out`` holds something else.
        EvaluationError, CheckpointError, RegistryError, ClipError: see the stages.
    """
    if len(models) < 2:
        raise ConfigError(f"compare {' '.join(models)}: name at least two models")
    workspace, params = open_project()
    _check_output(out)
    from clipgan.metrics.comparison import compare_models, format_comparisons
    from clipgan.stages.compare import measure_models
    from clipgan.stages.model_sources import ModelLoader
    from clipgan.tracking.run_contexts import open_comparison_run

    loader = ModelLoader.of_project(params, workspace)
    with (
        set_stage_threads("evaluate", params.threads),
        open_comparison_run(
            tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
            experiment=params.register_model.model_name,
            models=" ".join(models),
            # Not the folder of the pipeline, which removes its own without a lock.
            work=workspace.work("comparisons"),
        ) as logger,
    ):
        evaluation = measure_models(
            params.evaluate,
            models,
            protocols=protocols or params.evaluate.protocols,
            loader=loader,
            images=workspace.images,
            output=out,
            cache=workspace.work("evaluate"),
            logger=logger,
        )
    comparisons = compare_models(evaluation.values, evaluation.baseline)
    return f"{format_comparisons(comparisons)}\n{out / REPORT}"


def _evaluate_folder(
    params: Params,
    workspace: Workspace,
    generated: Path,
    reference: Path,
    target: tuple[tuple[str, ...], Path],
) -> str:
    from clipgan.artifacts import built_folder
    from clipgan.evaluation.report.page import format_report
    from clipgan.evaluation.report.pictures import Pictures
    from clipgan.evaluation.report.writing import write_report
    from clipgan.metrics.evaluations import save_evaluation
    from clipgan.stages.evaluate_folder import evaluate_folder

    protocols, out = target
    evaluation = evaluate_folder(
        params.evaluate,
        reading=params.ingest,
        generated=generated,
        reference=reference,
        protocols=protocols,
        cache=workspace.work("evaluate"),
    )
    with built_folder(out) as building:
        save_evaluation(building, evaluation)
        write_report(building, evaluation, Pictures())
    return f"{format_report(evaluation)}\n{out / REPORT}"


def _refuse_bare_images(subject: str) -> None:
    folder = Path(subject)
    # A bundle or checkpoint has its description beside it; everything else may be images.
    if folder.is_dir() and any(folder.glob("*.*")) and not any(folder.glob("*.json")):
        raise ConfigError(
            f"{subject}: a folder of images needs real ones beside it: add --reference FOLDER"
        )


def _check_output(out: Path) -> None:
    """Only an empty place or an earlier evaluation is replaced, and it can be written to."""
    if out.is_file():
        raise ConfigError(f"--out {out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / REPORT).is_file():
        raise ConfigError(f"--out {out}: holds other files; name a new folder")
    check_writable(out, out)
