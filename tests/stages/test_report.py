"""The report stage on what the evaluate stage leaves."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

import pytest
from PIL import Image

from clipgan.errors import EvaluationError
from clipgan.evaluation.report.summary import summarise
from clipgan.metrics.evaluations import load_evaluation
from clipgan.metrics.table import build_table
from clipgan.stages.report import report as draw_report
from tests.stages.test_evaluate import Measured, run, save_training
from tests.stages.tiny_training import build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    save_training(root)
    return root


@pytest.fixture(scope="module")
def report(world: Path) -> Measured:
    return run(world)


def test_the_report_is_drawn_again_without_measuring(
    world: Path, report: Measured, tmp_path: Path
) -> None:
    for folder in ("evaluation", "training"):
        (tmp_path / folder).symlink_to(world / folder)
    draw_report(
        evaluation=tmp_path / "evaluation",
        training=tmp_path / "training",
        output=tmp_path / "report",
    )
    for path in (world / "evaluation-report").iterdir():
        assert (tmp_path / "report" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["evaluation.json", "pictures.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_damaged_evaluation_has_no_report(
    world: Path, report: Measured, tmp_path: Path, name: str, content: bytes | None
) -> None:
    shutil.copytree(world / "evaluation", tmp_path / "evaluation")
    (tmp_path / "evaluation" / name).unlink()
    if content is not None:
        (tmp_path / "evaluation" / name).write_bytes(content)
    with pytest.raises(EvaluationError, match=rf"{name}: .*run the evaluate stage"):
        draw_report(
            evaluation=tmp_path / "evaluation",
            training=world / "training",
            output=tmp_path / "report",
        )
    assert not (tmp_path / "report").exists()


def test_the_report_says_in_words_what_the_values_show(world: Path, report: Measured) -> None:
    evaluation = load_evaluation(world / "evaluation")
    table = build_table(evaluation)
    summary = summarise(evaluation.values, table.comparisons)
    assert summary[0].startswith("trained against initial, paired: ")
    verdicts = {row.metric: row.verdict for row in table.rows if row.verdict}
    assert set(verdicts) == set(report.values["trained"])
    for name in ("report.md", "report.html"):
        text = html.unescape((world / "evaluation-report" / name).read_text())
        assert all(sentence in text for sentence in summary)
    page = (world / "evaluation-report" / "report.md").read_text()
    assert f"| {verdicts['clip_score']} |" in page


def test_sheets_have_prompts_times_samples(world: Path, report: Measured) -> None:
    with Image.open(world / "evaluation-report" / "samples.png") as grid:
        width, height = grid.size
    with Image.open(world / "evaluation-report" / "before_after.png") as both:
        # Half of the samples of each, side by side, below one line of text.
        assert both.width == width
        assert height < both.height < height + 64
    assert width > 4 * 128
    assert height == pytest.approx(3 * 128, abs=32)
