"""What a first training and its evaluation say of themselves, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgan.evaluation.report.page import format_report
from clipgan.evaluation.report.summary import summarise
from clipgan.metrics.evaluations import Evaluation, load_evaluation
from clipgan.metrics.table import build_table
from clipgan.stages.evaluate import evaluate
from tests.stages.test_evaluate import CHANGES
from tests.stages.tiny_training import TinyClip, build_world, run_training, tiny_params


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


def evaluate_training(root: Path) -> Evaluation:
    params = tiny_params(CHANGES)
    return evaluate(
        params.evaluate,
        features_config=params.features,
        training=root / "training",
        images=root / "images",
        features=root / "features",
        output=root / "evaluation",
        cache=None,
        clip=TinyClip(),  # type: ignore[arg-type]
    )


def test_a_clip_of_hashed_words_and_missing_variety_are_told(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_training(world, tiny_params())
    assert "note: the CLIP tiny does not understand these images or captions" in (
        capsys.readouterr().out
    )
    evaluate_training(world)
    evaluation = load_evaluation(world / "evaluation")
    table = build_table(evaluation)
    shown = "\n".join(summarise(evaluation.values, table.comparisons))
    assert "No variety: recall_efficientnet_lite0 is 0 (trained)" in shown
    assert "The CLIP tiny does not understand your images" in shown
    assert shown.replace("\n", "\n- ") in format_report(evaluation)
