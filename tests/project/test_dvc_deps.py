"""dvc.yaml lists what decides a stage's result: DVC does not follow imports, so this test does."""

from __future__ import annotations

import ast
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from clipgan.families.registry import FAMILIES
from clipgan.source_code import NO_RESULT_DEPENDS_ON, list_sources
from clipgan.stages.catalog import STAGES

ROOT = Path(__file__).parents[2]
CODE = ROOT / "src"


FAMILY_PARTS = {"train": "training", "pretrain_generator": "training", "evaluate": "networks"}
"""What a stage imports of the chosen family, by name."""


@cache
def load_stages(*files: str, family: str = "lafite") -> dict[str, Any]:
    """Those of the pipeline and the recipes as DVC fills them in; paths from the project's root."""
    stages: dict[str, Any] = {}
    for file in files or ("dvc.yaml", "recipes/dvc.yaml"):
        text = (ROOT / file).read_text(encoding="utf-8").replace("${train.family}", family)
        stages |= YAML(typ="safe", pure=True).load(text)["stages"]
    return stages


def list_stage_sources(name: str, family: str) -> frozenset[str]:
    modules = [f"clipgan.stages.{name}"]
    if part := FAMILY_PARTS.get(name):
        modules.append(f"{FAMILIES[family].package}.{part}")
    return list_sources(*modules)


@cache
def build_graph() -> grimp.ImportGraph:
    return grimp.build_graph("clipgan", cache_dir=None)


def find_file(module: str) -> Path:
    path = CODE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def holds_code(module: str) -> bool:
    """False for a package whose __init__.py is a docstring."""
    statements = ast.parse(find_file(module).read_text(encoding="utf-8")).body
    return any(not isinstance(statement, ast.Expr) for statement in statements)


def is_covered(path: Path, dependencies: list[str]) -> bool:
    return any(path.is_relative_to(ROOT / dependency) for dependency in dependencies)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", load_stages())
def test_dependencies_cover_every_import_of_the_stage(name: str, family: str) -> None:
    dependencies = load_stages(family=family)[name].get("deps", [])
    if load_stages()[name].get("always_changed"):
        return  # run every time, whatever its code
    missing = {
        module
        for module in list_stage_sources(name, family)
        if not is_covered(find_file(module), dependencies)
    }
    assert not missing, f"stage {name} imports these, dvc.yaml lists no dependency for them"


@pytest.mark.parametrize("name", load_stages())
def test_no_dependency_on_code_is_superfluous(name: str) -> None:
    """What only one family imports of the shared code may stand there for all of them."""
    modules = frozenset().union(*(list_stage_sources(name, family) for family in FAMILIES))
    dependencies = load_stages()[name].get("deps", [])
    files = {find_file(module) for module in modules}
    code = [d for d in dependencies if d.startswith("src/") and "/assets/" not in d]
    superfluous = [d for d in code if not any(f.is_relative_to(ROOT / d) for f in files)]
    assert not superfluous, f"stage {name} imports nothing of these"


@pytest.mark.parametrize("name", STAGES)
def test_sources_are_those_of_the_import_graph(name: str) -> None:
    """The resume folders' own reading of the imports, held to another program's."""
    module = f"clipgan.stages.{name}"
    found = build_graph().find_upstream_modules(module) | {module}
    # Importing a.b runs a/__init__.py too.
    found |= {package for other in found if (package := other.rpartition(".")[0])}
    left_out = tuple(f"{name}." for name in NO_RESULT_DEPENDS_ON)
    expected = {other for other in found if not f"{other}.".startswith(left_out)}
    assert list_sources(module) == {other for other in expected if holds_code(other)}


def test_every_dependency_on_code_exists() -> None:
    stages = [stage for family in FAMILIES for stage in load_stages(family=family).items()]
    for name, stage in stages:
        for dependency in stage.get("deps", []):
            if dependency.startswith("src/"):
                assert (ROOT / dependency).exists(), f"{name}: {dependency}"


def test_every_stage_has_its_command_settings_and_words() -> None:
    stages = load_stages()
    assert set(stages) == set(STAGES)
    for name, stage in stages.items():
        assert stage["cmd"] == f"env PYTHONPATH=src python -m clipgan stage {name}"
        assert stage["desc"]
        if not stage.get("always_changed"):
            assert "params" not in stage, "which keys count is written by the stage settings"
            # What the report shows was chosen when it was measured: it reads no parameter.
            assert (f"data/settings/{name}.json" in stage["deps"]) == (name != "report")


def test_no_stage_depends_on_monitoring_or_registration() -> None:
    used = load_stages()["settings"]["params"]
    assert used == [
        *("ingest", "features", "train", "evaluate"),
        *("pretrain_generator", "pretrain_mapper", "pretrain_clip"),
    ]


def test_recipes_are_run_from_the_projects_root_and_by_nobody_else() -> None:
    recipes = load_stages("recipes/dvc.yaml")
    assert set(recipes) == {"pretrain_clip", "pretrain_generator", "pretrain_mapper"}
    assert not recipes.keys() & load_stages("dvc.yaml").keys()
    made = {path for stage in recipes.values() for out in stage["outs"] for path in out}
    for name, stage in load_stages("dvc.yaml").items():
        assert not made & set(stage.get("deps", [])), f"{name} would run a recipe"
    assert all(stage["wdir"] == ".." for stage in recipes.values())


def test_bytecode_is_no_dependency() -> None:
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("family", FAMILIES)
def test_dvc_lists_the_code_of_the_chosen_family_alone(family: str, tmp_path: Path) -> None:
    """By DVC itself: an edit of one family's code leaves another one's training as it is."""
    from dvc.repo import Repo

    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("family: lafite", f"family: {family}"))
    with Repo.init(str(tmp_path), no_scm=True) as repository:
        stages = {stage.name: stage for stage in repository.index.stages}
    listed = {str(dep) for name in ("train", "evaluate") for dep in stages[name].deps}
    found = {part for path in listed if "/families/" in path for part in Path(path).parts}
    assert found & FAMILIES.keys() == {family}
