from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipgan.errors import EvaluationError
from clipgan.evaluation.intervals import Estimate
from clipgan.evaluation.protocol import MetricValue, Protocol, build_value
from clipgan.evaluation.report import (
    Evaluation,
    is_lower_better,
    key_metric,
    load_evaluation,
    save_evaluation,
)
from tests.unit.evaluation.test_protocol import PROTOCOL

KID = PROTOCOL.model_copy(update={"metric": "kid_efficientnet_lite0", "clip": None})
CLIP = PROTOCOL.model_copy(update={"metric": "clip_score", "independent": False})


def value_of(number: float, protocol: Protocol, spread: float = 0.0) -> MetricValue:
    left = (number - spread, number + spread) if spread else ()
    return build_value(Estimate(number, left), protocol, 0.95)


EVALUATION = Evaluation(
    values={
        "trained": {
            "kid_efficientnet_lite0": value_of(0.0123456789, KID, 0.001),
            "clip_score": value_of(0.31, CLIP),
        },
        "initial": {"kid_efficientnet_lite0": value_of(0.5, KID, 0.002)},
        "real": {"clip_score": value_of(0.4, CLIP)},
    },
    skipped={"fid": "no weights"},
    warnings=("few images",),
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


def test_report_is_a_table_with_everything_a_reader_needs(tmp_path: Path) -> None:
    save_evaluation(tmp_path, EVALUATION)
    text = (tmp_path / "report.md").read_text()
    assert "| metric | better | trained | initial | real |" in text
    assert "| kid_efficientnet_lite0 | lower | 0.01235 [-0.0003605, 0.02505] | " in text
    assert "| clip_score | higher | 0.31 |  | 0.4 |" in text
    assert "95% intervals" in text
    assert "- fid: no weights" in text
    assert "- few images" in text
    assert "training CLIP" in text
    assert "subset_size 500" in text


def test_one_generator_alone_makes_a_table_too(tmp_path: Path) -> None:
    alone = Evaluation({"trained": EVALUATION.values["trained"]})
    save_evaluation(tmp_path, alone)
    assert "| metric | better | trained |\n" in (tmp_path / "report.md").read_text()
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
    assert is_lower_better("fid30k-val/fid")
    assert is_lower_better("kid")
    assert is_lower_better("memorised_share_x")
    assert not is_lower_better("clip_score")
    assert not is_lower_better("cub/inception_score")
