"""The verdict on a training: at most four lines, and no guess about what was not measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipgan.errors import EvaluationError
from clipgan.evaluation.report.history import EVALUATIONS_FOLDER, Point
from clipgan.evaluation.report.page import build_page, format_report
from clipgan.evaluation.report.pictures import Pictures
from clipgan.evaluation.report.verdict import describe_progress, judge_training
from clipgan.metrics.evaluations import Evaluation, save_evaluation
from tests.metric_values import value_of
from tests.unit.evaluation.test_diagnosis import build_history

METRIC = "fd_efficientnet_lite0"
PACE = 10.0


def list_points(*values: float) -> dict[str, list[Point]]:
    """At 0, 2,000, 4,000, ... images; every value known to about 2."""
    curve = [(2000 * n, value_of(METRIC, value, 1.0)) for n, value in enumerate(values)]
    return {"recall": curve[::-1], METRIC: curve}


def test_a_curve_that_falls_wants_more_images() -> None:
    said = describe_progress(list_points(90, 70, 60, 52, 45), 8000, PACE)
    assert said == (
        f"still improving: {METRIC} 52 to 45 in the last quarter; 8,000 more images take about "
        "13m20s at 10 images/s (train.total_images)"
    )


@pytest.mark.parametrize(("end", "rises"), [(51.5, False), (52.0, False), (70.0, True)])
def test_a_curve_that_lies_flat_or_rises_does_not(end: float, rises: bool) -> None:
    said = describe_progress(list_points(90, 70, 60, 52, end), 8000, PACE)
    assert said.startswith(
        f"no longer improving since image 6,000: {METRIC} 52 there, {end:.4g} at best"
    )
    assert ("it rises again" in said) == rises


@pytest.mark.parametrize("points", [{}, list_points(90)])
def test_what_was_not_measured_is_not_guessed(points: dict[str, list[Point]]) -> None:
    said = describe_progress(points, 8000, PACE)
    assert said.startswith("whether more images help was not measured (monitoring.evaluation_int")
    assert "8,000 more images take about 13m20s" in said


def test_the_start_and_the_end_alone_are_no_curve() -> None:
    curve = list_points(90, 70, 60, 52, 45)[METRIC]
    said = describe_progress({METRIC: [curve[0], curve[-1]]}, 8000, PACE)
    assert said.startswith("whether more images help was not measured")


def write_training(folder: Path, rows: list[dict[str, float]], *middle: float) -> Evaluation:
    """A training of 8,000 images with evaluations in its middle; the one at its end."""
    tree = {"family": "lafite", "images_seen": 8000, "images_per_second": PACE}
    (folder / "training.json").write_text(json.dumps(tree))
    (folder / "history.json").write_text(json.dumps(rows))
    for number, value in enumerate(middle, start=1):
        place = folder / EVALUATIONS_FOLDER / f"images-{2000 * number:08d}"
        save_evaluation(place, Evaluation({"trained": {METRIC: value_of(METRIC, value, 1.0)}}))
    return Evaluation({"trained": {METRIC: value_of(METRIC, 45.0, 1.0)}}, images_seen=8000)


def test_a_sound_training(tmp_path: Path) -> None:
    evaluation = write_training(tmp_path, build_history(), 70, 60, 52)
    sound, progress = judge_training(tmp_path, evaluation)
    assert sound == "Nothing wrong shows in the training's curves."
    assert progress.startswith("Still improving: ")


def test_a_short_training(tmp_path: Path) -> None:
    evaluation = write_training(tmp_path, build_history(4))
    early, progress = judge_training(tmp_path, evaluation)
    assert early.startswith("Too early to say")
    assert progress.startswith("Whether more images help was not measured")


def test_a_training_with_every_fault_takes_four_lines_and_is_on_both_pages(tmp_path: Path) -> None:
    rows = build_history(
        generator_adversarial=90.0,
        training_logits_sign=0.9,
        held_out_logits_sign=-0.2,
        sample_diversity=0.3,
        sample_retrieval=0.0,
    )[4:]
    evaluation = write_training(tmp_path, rows)
    verdict = judge_training(tmp_path, evaluation)
    assert [line.split(" ")[0] for line in verdict] == [
        "The", "The", "Each", "Whether",
    ]  # fmt: skip
    text = format_report(evaluation, verdict)
    assert "## The training\n\n- The loss generator_adversarial has grown" in text
    assert "\n\n\n" not in text
    page = build_page(evaluation, Pictures(), None, verdict)
    assert '<a href="#verdict">The training</a>' in page
    assert page.count("<li>") == len(verdict)


def test_no_training_has_no_verdict(tmp_path: Path) -> None:
    assert judge_training(tmp_path, Evaluation({})) == ()
    assert "The training" not in format_report(Evaluation({"trained": {}}))


@pytest.mark.parametrize("text", ["{", "[]", '{"family": "lafite"}', '{"images_seen": "many"}'])
def test_a_damaged_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"training\.json: damaged .*run the train stage"):
        judge_training(tmp_path, Evaluation({}))
