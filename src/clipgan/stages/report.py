"""Stage report: results of stage evaluate -> report.html, report.md, grids and curves.

It is a stage of its own, so that a change of the page's style measures nothing again.
"""

from __future__ import annotations

from pathlib import Path

from clipgan.artifacts import built_folder
from clipgan.evaluation.report.pictures import load_pictures
from clipgan.evaluation.report.writing import write_report
from clipgan.metrics.evaluations import load_evaluation
from clipgan.run_logger import NULL_LOGGER, RunLogger, UnfailingRunLogger, log_files

LOGGED_FOLDER = "evaluation"


def report(evaluation: Path, training: Path, output: Path, logger: RunLogger = NULL_LOGGER) -> None:
    """Draw the report of a training's evaluation.

    Args:
        evaluation: the evaluate stage's folder.
        training: the train stage's folder, whose losses become curves.
        output: folder to make or replace.
        logger: receives the files.

    Raises:
        EvaluationError: a file of the evaluation or the training's history is damaged.
    """
    measured, pictures = load_evaluation(evaluation), load_pictures(evaluation)
    with built_folder(output) as building:
        write_report(building, measured, pictures, training=training)
    log_files(UnfailingRunLogger(logger), output, LOGGED_FOLDER)
