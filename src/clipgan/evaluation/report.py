"""Evaluation results as files: numbers for DVC, values with protocols for the gate, a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipgan.artifacts import write_bytes, write_json
from clipgan.errors import EvaluationError
from clipgan.evaluation.protocol import MetricValue, parse_metric_value
from clipgan.evaluation.protocols import OFFLINE

METRICS_FOLDER = "metrics"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.md"
TRAINED = "trained"
INITIAL = "initial"
REAL = "real"
SECTIONS = (TRAINED, INITIAL, REAL)

_LOWER_IS_BETTER = ("fd_", "kid", "fid", "cmmd", "memorised_share", "path_length")


@dataclass(frozen=True)
class Evaluation:
    """All that one evaluation found out.

    ``values`` maps ``trained``, ``initial`` (the generator the training started from) and ``real``
    (real images in the generator's place: the ceiling) to metric names to values; in a comparison,
    the models' addresses. ``skipped`` maps the names of absent metrics to one line of reason;
    ``warnings`` qualify values that are there. ``summary`` says in words what the values show
    (:mod:`clipgan.evaluation.summary`), ``verdicts`` of ``trained`` against ``initial``, metric by
    metric; ``prompts`` are texts of the data, those of the sample sheet.
    """

    values: Mapping[str, Mapping[str, MetricValue]]
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    verdicts: Mapping[str, str] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()


def key_metric(protocol_name: str, metric: str) -> str:
    """How a value is called among values of several protocols: ``fid30k-val/fid``; those of
    ``fd-offline`` go by the metric alone."""
    return metric if protocol_name == OFFLINE else f"{protocol_name}/{metric}"


def is_lower_better(key: str) -> bool:
    """Whether a smaller value of this metric is the better one."""
    return key.rpartition("/")[2].startswith(_LOWER_IS_BETTER)


def save_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write evaluation.json (everything), report.md and metrics/METRIC.json (numbers only) into
    ``folder``, each atomically.

    ``dvc metrics show`` gives a file a row and a number a column: a file for each metric makes a
    table that fits a terminal."""
    tree: dict[str, Any] = {
        section: {name: value.model_dump(mode="json") for name, value in values.items()}
        for section, values in evaluation.values.items()
    }
    tree["skipped"] = dict(evaluation.skipped)
    tree["warnings"] = list(evaluation.warnings)
    tree["summary"] = list(evaluation.summary)
    tree["verdicts"] = dict(evaluation.verdicts)
    tree["prompts"] = list(evaluation.prompts)
    write_json(folder / EVALUATION_FILE, tree)
    write_bytes(folder / REPORT_FILE, format_report(evaluation).encode())
    for name, numbers in _list_numbers(evaluation).items():
        write_json(folder / METRICS_FOLDER / f"{name}.json", numbers)


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
    if not isinstance(tree, dict) or not isinstance(tree.get(TRAINED), dict):
        raise EvaluationError(f"{path}: has no section {TRAINED!r}; run the evaluate stage again")
    values = {
        section: {
            name: parse_metric_value(value, f"{path}: {section}.{name}")
            for name, value in tree[section].items()
        }
        for section in SECTIONS
        if section in tree
    }
    return Evaluation(
        values,
        tree.get("skipped", {}),
        tuple(tree.get("warnings", ())),
        tuple(tree.get("summary", ())),
        tree.get("verdicts", {}),
        tuple(tree.get("prompts", ())),
    )


def _list_numbers(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Metric -> section -> number."""
    numbers: dict[str, dict[str, float]] = {}
    for section, values in evaluation.values.items():
        for name, value in values.items():
            numbers.setdefault(name, {})[section] = value.value
    return numbers


def format_report(evaluation: Evaluation) -> str:
    """A Markdown page: what the values say, a table of them, their protocols, what is missing."""
    present = [section for section, values in evaluation.values.items() if values]
    lines = ["# Evaluation", ""]
    if evaluation.summary:
        lines += [*(f"- {sentence}" for sentence in evaluation.summary), ""]
    verdicts = evaluation.verdicts
    change = [f"{TRAINED} against {INITIAL}"] if verdicts else []
    lines.append(f"| metric | better | {' | '.join([*present, *change])} |")
    lines.append("| --- | --- |" + " ---: |" * len(present) + " --- |" * len(change))
    for name in dict.fromkeys(name for part in present for name in evaluation.values[part]):
        cells = [format_number(evaluation.values[section].get(name)) for section in present]
        cells += [verdicts.get(name, "")] if verdicts else []
        better = "lower" if is_lower_better(name) else "higher"
        lines.append(f"| {name} | {better} | {' | '.join(cells)} |")
    if REAL in present:
        lines += ["", "`real` puts real images in the generator's place: the ceiling of a metric."]
    lines += _explain_intervals(evaluation)
    lines += _format_notes(evaluation)
    lines += ["", "## Protocols", "", "| metric | extractor | judge | images | protocol |"]
    lines.append("| --- | --- | --- | --- | --- |")
    lines += [_format_protocol(value) for value in _first_values(evaluation)]
    return "\n".join(lines) + "\n"


def format_number(value: MetricValue | None) -> str:
    """``133.1 [131.2, 135]``: the value and its interval."""
    if value is None:
        return ""
    interval = value.interval
    if interval is None:
        return f"{value.value:.4g}"
    return f"{value.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def _first_values(evaluation: Evaluation) -> list[MetricValue]:
    return list(next(iter(evaluation.values.values())).values())


def _explain_intervals(evaluation: Evaluation) -> list[str]:
    for value in _first_values(evaluation):
        if value.interval is not None:
            share = f"{value.interval.confidence:.0%}"
            return ["", f"In brackets: {share} intervals, from {value.interval.method}."]
    return []


def _format_notes(evaluation: Evaluation) -> list[str]:
    lines: list[str] = []
    if evaluation.skipped:
        lines += ["", "## Not computed", ""]
        lines += [f"- {name}: {reason}" for name, reason in evaluation.skipped.items()]
    if evaluation.warnings:
        lines += ["", "## Read with care", ""]
        lines += [f"- {warning}" for warning in evaluation.warnings]
    return lines


def _format_protocol(value: MetricValue) -> str:
    protocol = value.protocol
    judge = "independent" if protocol.independent else "training CLIP"
    images = (
        f"{protocol.generated_count:,} generated, {protocol.reference_count:,} reference "
        f"({protocol.reference_split} of {protocol.reference_fingerprint[:12]})"
    )
    settings = "".join(f"; {key} {number}" for key, number in protocol.settings.items())
    truncation = "unknown" if protocol.truncation is None else f"{protocol.truncation:g}"
    extractor = f"{protocol.extractor} ({protocol.extractor_sha256[:12]})"
    return (
        f"| {protocol.metric} | {extractor} | {judge} | "
        f"{images} | {protocol.name}; reference: {protocol.reference}; "
        f"captions: {protocol.captions}; resize: {protocol.resize}; "
        f"truncation {truncation}; seed {protocol.seed}{settings} |"
    )
