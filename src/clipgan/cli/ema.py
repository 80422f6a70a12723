"""``clipgan ema``: generators of other averaging lengths, and their evaluation as a curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clipgan.stages.averaging_lengths import AveragedGenerator

EVALUATION, CURVES = "evaluation", "averaging_lengths.png"


def ema(
    sigmas: Annotated[
        list[float],
        typer.Argument(help="Averaging lengths as shares of the training, such as 0.03 0.05 0.1."),
    ],
    *,
    model: Annotated[
        Path, typer.Option("--model", help="Folder of a training that kept snapshots.")
    ] = Path("data/training"),
    out: Annotated[
        Path, typer.Option("--out", help="Folder for a bundle sigma-LENGTH of each length.")
    ] = Path("ema"),
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Measure them too, and draw values over lengths.")
    ] = False,
) -> None:
    """Write generators averaged over other lengths of a finished training (post-hoc EMA)."""
    from clipgan.cli.generate import check_writable
    from clipgan.stages.averaging_lengths import write_averaging_lengths

    check_writable(out, out)
    written = write_averaging_lengths(model, sorted(set(sigmas)), out)
    for one in written:
        print(f"{one.folder}: {one.error:.2%} off its length, {one.num_snapshots} snapshots")
    if evaluate:
        print(evaluate_lengths(model, written, out / EVALUATION))


def evaluate_lengths(model: Path, written: list[AveragedGenerator], out: Path) -> str:
    """Compare the generators with that of ``model`` as ``clipgan compare`` does, into ``out``.

    Returns:
        Lines to print: the comparison, each metric over the lengths, the path of its figure.
    """
    from clipgan.artifacts import write_bytes
    from clipgan.cli.evaluation import compare_subjects
    from clipgan.evaluation.report.figures import draw_curves
    from clipgan.metrics.evaluations import load_evaluation

    sigmas = {str(one.folder): one.sigma for one in written}
    lines = [compare_subjects([str(model), *sigmas], (), out)]
    values = load_evaluation(out).values
    curves = {
        metric: [(sigma, values[folder][metric]) for folder, sigma in sigmas.items()]
        for metric in values[str(model)]
    }
    for metric, points in curves.items():
        found = ", ".join(f"{value.value:.4g} at {sigma:g}" for sigma, value in points)
        lines.append(f"{metric}: {found}; {values[str(model)][metric].value:.4g} of {model}")
    write_bytes(out / CURVES, draw_curves(curves, values[str(model)], "averaging length (sigma)"))
    return "\n".join([*lines, str(out / CURVES)])
