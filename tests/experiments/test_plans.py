"""Plans of bench/experiments: every arm is a valid training, and pages say what results say."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.experiments.__main__ import PLANS as PLANS_FOLDER
from bench.experiments.__main__ import report
from bench.experiments.plan import Plan, Run, list_runs, load_plan
from bench.experiments.report import read_block, render_table
from bench.experiments.results import FOLDER, load_records

PLANS = sorted(Path("bench/experiments").glob("*.yaml"))


@pytest.fixture(params=PLANS, ids=lambda path: path.stem)
def plan_path(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@cache
def list_runs_of(path: Path) -> tuple[Plan, list[Run]]:
    """Reads a plan and all parameters of its runs, which takes seconds, once for all tests."""
    plan = load_plan(path)
    return plan, list_runs(plan)


def test_every_arm_is_a_valid_training(plan_path: Path) -> None:
    plan, runs = list_runs_of(plan_path)
    arms = sum(len(study.arms) for study in plan.studies.values())
    assert len(runs) == arms * len(plan.seeds)


def test_arms_of_a_study_differ(plan_path: Path) -> None:
    plan, runs = list_runs_of(plan_path)
    for name in plan.studies:
        keys = [run.key for run in runs if run.study == name]
        assert len(set(keys)) == len(keys)


def test_arms_see_the_same_number_of_images_unless_the_study_says_otherwise(
    plan_path: Path,
) -> None:
    plan, runs = list_runs_of(plan_path)
    for name, study in plan.studies.items():
        if study.compute != "images":
            continue
        of_study = [run for run in runs if run.study == name]
        assert len({run.params.train.total_images for run in of_study}) == 1


def test_the_same_training_in_two_studies_is_run_once() -> None:
    plan, listed = list_runs_of(Path("bench/experiments/lafite.yaml"))
    runs = {(run.study, run.arm): run for run in listed if run.seed == plan.seeds[0]}
    same = [("pseudo-text", "LAFITE-G"), ("noise-level", "1.5"), ("augmentation", "DiffAugment")]
    assert len({runs[place].key for place in same}) == 1


def test_page_shows_the_recorded_results(plan_path: Path) -> None:
    plan, records = load_plan(plan_path), load_records(plan_path.stem)
    page = (FOLDER / f"{plan_path.stem}.md").read_text(encoding="utf-8")
    assert records
    for name, study in _studies_with_results(plan, plan_path.stem):
        found = [record for record in records if record.study == name]
        assert read_block(page, name) == render_table(plan, study, found)


def test_report_makes_the_page_from_the_recorded_results_alone(
    plan_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    name, page = plan_path.stem, (FOLDER / f"{plan_path.stem}.md").read_text(encoding="utf-8")
    emptied = re.sub(r"(<!-- results: .*? -->\n).*?(<!-- end -->)", r"\1\2", page, flags=re.DOTALL)
    assert emptied != page
    copy = tmp_path / FOLDER / f"{name}.md"
    copy.parent.mkdir(parents=True)
    copy.write_text(emptied, encoding="utf-8")
    shutil.copy(FOLDER / f"{name}.json", copy.parent)
    (tmp_path / "profiles").symlink_to(Path("profiles").absolute())
    monkeypatch.chdir(tmp_path)
    report(name)
    assert copy.read_text(encoding="utf-8") == page
    pictures = FOLDER / name
    plan = load_plan(PLANS_FOLDER / plan_path.name)
    studies = [study for study, _ in _studies_with_results(plan, name)]
    assert {path.name for path in pictures.iterdir()} == {f"{s}-curves.png" for s in plan.studies}
    said = capsys.readouterr().out
    assert all(f"{pictures / study}-samples.png stays" in said for study in studies)


def test_recorded_results_are_of_the_plan_as_it_stands(plan_path: Path) -> None:
    places = {(run.study, run.arm, run.seed) for run in list_runs_of(plan_path)[1]}
    assert {record.place for record in load_records(plan_path.stem)} <= places


def _studies_with_results(plan: Plan, name: str) -> list[tuple[str, object]]:
    recorded = {record.study for record in load_records(name)}
    return [(study, plan.studies[study]) for study in plan.studies if study in recorded]
