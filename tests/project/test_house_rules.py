"""Rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
OTHERS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
ONE_PAGE = re.compile(r"src/clipgan/families/\w+/training/step\.py")
"""Where the method ``step`` is a paper's algorithm from top to bottom, on one page."""
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=identify)
def test_files_hold_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350
    assert not VAGUE_NAMES & {part.removesuffix(".py") for part in path.parts}


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_functions_fit_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            documented = ast.get_docstring(node) is not None
            first = body[1].lineno if documented and len(body) > 1 else node.lineno
            length = (node.end_lineno or node.lineno) - first + 1
            is_page = node.name == "step" and ONE_PAGE.fullmatch(identify(path)) is not None
            assert length <= (100 if is_page else 50), f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module says what it is for"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public:
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_no_exception_is_swallowed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass | ast.Continue)
            assert node.type is not None, "a bare except hides what happened"
            assert not silent, f"line {node.lineno} swallows an exception"


def test_nothing_pickles() -> None:
    pattern = re.compile(
        r"\bpickle\.(load|dump)|(?<!safetensors\.)torch\.save\(|weights_only=False"
    )
    offenders = [identify(p) for p in SOURCES if pattern.search(p.read_text())]
    assert offenders == []


def test_repository_holds_no_large_or_generated_files() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in tracked if (ROOT / name).is_file()}
    assert {n: s for n, s in sizes.items() if s > 30 * 2**20} == {}
    assert [n for n in sizes if n.endswith((".pyc", ".db", ".pkl", ".pt", ".pth"))] == []
