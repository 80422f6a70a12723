from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipgan.errors import EvaluationError
from clipgan.evaluation.report.page import build_page, format_report
from clipgan.evaluation.report.pictures import Pictures
from clipgan.evaluation.study.protocols import key_metric
from clipgan.metrics.evaluations import Evaluation, load_evaluation, save_evaluation
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import MetricValue, build_value
from tests.metric_values import PROTOCOL, value_of

CLIP = PROTOCOL.model_copy(update={"metric": "clip_score", "independent": False})


def score_of(number: float) -> MetricValue:
    return build_value(Estimate(number), CLIP, 0.95, better="higher")


def kid_of(number: float, spread: float) -> MetricValue:
    return value_of("kid_efficientnet_lite0", number, spread, clip=None)


EVALUATION = Evaluation(
    values={
        "trained": {
            "kid_efficientnet_lite0": kid_of(0.0123456789, 0.001),
            "clip_score": score_of(0.31),
        },
        "initial": {"kid_efficientnet_lite0": kid_of(0.5, 0.002)},
        "real": {"clip_score": score_of(0.4)},
    },
    skipped={"fid": "no weights"},
    warnings=("few images",),
    title="A test",
    baseline="initial",
    images_seen=96,
)


def test_round_trip_keeps_values_and_protocols(tmp_path: Path) -> None:
    save_evaluation(tmp_path, EVALUATION)
    assert load_evaluation(tmp_path) == EVALUATION


def test_each_metric_has_a_file_of_numbers_only(tmp_path: Path) -> None:
    save_evaluation(tmp_path, EVALUATION)
    tree = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "metrics").iterdir()}
    assert tree == {
        "kid_efficientnet_lite0": {"trained": 0.0123456789, "initial": 0.5},
        "clip_score": {"trained": 0.31, "real": 0.4},
    }


def test_report_is_a_table_with_everything_a_reader_needs() -> None:
    text = format_report(EVALUATION)
    assert "| metric | better | initial | trained | real | trained against initial |" in text
    assert "| kid_efficientnet_lite0 | lower | 0.5 [0.4901, 0.5099] | 0.01235 [0.007377, " in text
    assert "|  | better |\n" in text
    assert "| clip_score | higher |  | 0.31 | 0.4 |  |" in text
    assert "95% intervals" in text
    assert "- fid: no weights" in text
    assert "- few images" in text
    assert "training CLIP" in text
    assert "subset_size 500" in text


def test_one_generator_alone_makes_a_table_too(tmp_path: Path) -> None:
    alone = Evaluation({"trained": EVALUATION.values["trained"]})
    save_evaluation(tmp_path, alone)
    assert "| metric | better | trained |\n" in format_report(alone)
    assert load_evaluation(tmp_path) == alone


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no such file; run the evaluate stage"),
        ("{", "damaged"),
        ("[]", "no section 'trained'"),
        ('{"trained": {"fd": 1.0}}', r"trained\.fd"),
        ('{"trained": {"fd": {"value": 1.0}}}', r"trained\.fd: protocol"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(EvaluationError, match=reason):
        load_evaluation(tmp_path)


def test_values_of_other_protocols_go_by_both_names() -> None:
    assert key_metric("fd-offline", "fd_x") == "fd_x"
    assert key_metric("fid30k-val", "fid") == "fid30k-val/fid"


def test_markdown_has_no_empty_lines_inside_a_table() -> None:
    text = format_report(EVALUATION)
    assert "\n\n\n" not in text
    head, rule, first, second = text.split("\n\n")[2].splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")


def test_the_page_shows_the_same_table() -> None:
    page = build_page(EVALUATION, Pictures())
    assert "<title>A test</title>" in page
    assert '<td class="number">0.5 <span class=soft>[0.4901, 0.5099]</span></td>' in page
    assert "<td></td>" not in page
    assert build_page(EVALUATION, Pictures()) == page


def test_a_file_of_before_is_read(tmp_path: Path) -> None:
    save_evaluation(tmp_path, EVALUATION)
    path = tmp_path / "evaluation.json"
    tree = json.loads(path.read_text())
    for name in ("title", "baseline", "images_seen", "sections"):
        del tree[name]
    for section in EVALUATION.values:
        for value in tree[section].values():
            del value["better"]
    path.write_text(json.dumps(tree | {"summary": ["words"], "verdicts": {"clip_score": "better"}}))
    assert load_evaluation(tmp_path).values == EVALUATION.values
