"""An evaluation as files: all values with their protocols, and plain numbers for DVC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipgan.artifacts import write_json
from clipgan.errors import EvaluationError
from clipgan.metrics.comparison import REAL
from clipgan.metrics.values import MetricValue, parse_value

METRICS_FOLDER = "metrics"
EVALUATION_FILE = "evaluation.json"
TRAINED = "trained"
INITIAL = "initial"
SECTIONS = (TRAINED, INITIAL, REAL)

Values = Mapping[str, Mapping[str, MetricValue]]


@dataclass(frozen=True)
class Evaluation:
    """Everything that one evaluation measured.

    Attributes:
        values: ``trained``, ``initial`` (the generator the training started from) and ``real``
            (real images in the generator's place, the best that can be reached), or in a comparison
            the models' addresses -> metric -> value.
        skipped: name of an absent metric -> one line of reason.
        warnings: what to know before reading the values.
        prompts: texts of the data, those of the sample grid.
        title: heading of the report.
        baseline: the model that the others are compared with; None: no comparison.
        images_seen: real images shown in the training that was evaluated; None: no training.
    """

    values: Values
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    title: str = "Evaluation"
    baseline: str | None = None
    images_seen: int | None = None


def save_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write evaluation.json (everything) and metrics/METRIC.json (numbers only) into ``folder``,
    each atomically.

    ``dvc metrics show`` prints a row for each file and a column for each number, so one file for
    each metric makes a table that fits a terminal.
    """
    tree: dict[str, Any] = {
        section: {name: value.model_dump(mode="json") for name, value in values.items()}
        for section, values in evaluation.values.items()
    }
    tree["skipped"] = dict(evaluation.skipped)
    tree["warnings"] = list(evaluation.warnings)
    tree["prompts"] = list(evaluation.prompts)
    tree["title"] = evaluation.title
    tree["baseline"] = evaluation.baseline
    tree["images_seen"] = evaluation.images_seen
    tree["sections"] = list(evaluation.values)
    write_json(folder / EVALUATION_FILE, tree)
    numbers: dict[str, dict[str, float]] = {}
    for section, values in evaluation.values.items():
        for name, value in values.items():
            numbers.setdefault(name, {})[section] = value.value
    for name, row in numbers.items():
        write_json(folder / METRICS_FOLDER / f"{name}.json", row)


def load_evaluation(folder: Path) -> Evaluation:
    """Read evaluation.json of ``folder`` back.

    Raises:
        EvaluationError: the file is missing, no JSON, or a value lacks a part of its protocol.
    """
    path = folder / EVALUATION_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file; run the evaluate stage") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EvaluationError(f"{path}: damaged ({error}); run the evaluate stage again") from None
    # Files of older versions do not list their sections, which are those of the evaluate stage.
    sections = tree.get("sections", [TRAINED]) if isinstance(tree, dict) else [TRAINED]
    if not isinstance(tree, dict) or not all(isinstance(tree.get(s), dict) for s in sections):
        raise EvaluationError(
            f"{path}: has no section {sections[0]!r}; run the evaluate stage again"
        )
    values = {
        section: {
            name: parse_value(value, f"{path}: {section}.{name}")
            for name, value in tree[section].items()
        }
        for section in tree.get("sections", [name for name in SECTIONS if name in tree])
    }
    return Evaluation(
        values,
        tree.get("skipped", {}),
        tuple(tree.get("warnings", ())),
        tuple(tree.get("prompts", ())),
        tree.get("title", Evaluation.title),
        tree.get("baseline"),
        tree.get("images_seen"),
    )
