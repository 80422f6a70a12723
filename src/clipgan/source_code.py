"""The sources that decide what a module computes: itself and all it imports from this package.

Their hash is part of the names of resume folders and caches, so that state made by other code is
not used. dvc.yaml lists the same files for DVC; a test compares the two lists.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import clipgan
from clipgan.artifacts import hash_file, hash_json

NO_RESULT_DEPENDS_ON = {
    "clipgan.config": "parameters count by their values",
    "clipgan.errors": "words",
    "clipgan.families.registry": "where the parts of a family lie",
    "clipgan.progress": "a progress bar",
    "clipgan.resume_state": "the life of folders",
    "clipgan.run_logger": "what is logged decides nothing",
    "clipgan.source_code": "names of folders",
    "clipgan.threads": "how fast; a training's number stands in its checkpoints",
}
"""Modules, and whole packages, whose changes must not cause any result to be made again -> why."""

_ROOT = Path(clipgan.__file__).parents[1]
_FAMILY_CONFIG = re.compile(r"clipgan\.families\.\w+\.config")


@cache
def hash_sources(*modules: str) -> str:
    """SHA-256 over the sources behind ``modules``, as they were at the first call."""
    return hash_json({name: hash_file(_find_file(name)) for name in sorted(list_sources(*modules))})


def list_sources(*modules: str) -> frozenset[str]:
    """Names of the modules that decide what ``modules`` compute.

    A family's parts are imported by name: name the part beside the stage that uses it.

    Imports inside functions count. Not counted are packages whose ``__init__.py`` is only a
    docstring, and the modules in :data:`NO_RESULT_DEPENDS_ON`, with what they import.
    """
    seen: set[str] = set()
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        if name in seen or _is_left_out(name):
            continue
        seen.add(name)
        waiting += _list_imports(name)
    return frozenset(name for name in seen if _holds_code(name))


def _is_left_out(module: str) -> bool:
    left_out = any(module == name or module.startswith(f"{name}.") for name in NO_RESULT_DEPENDS_ON)
    # Parameters of a family count by their values, too.
    return left_out or _FAMILY_CONFIG.fullmatch(module) is not None


def _list_imports(module: str) -> list[str]:
    imported = [module.rpartition(".")[0]]  # importing a.b runs a/__init__.py too
    for node in ast.walk(_parse(module)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name may be a module of the package.
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    packages = {"clipgan", module.partition(".")[0]}  # a family may lie in another one
    own = (name for name in imported if name.partition(".")[0] in packages)
    return [name for name in own if _find_file(name).is_file()]


def _holds_code(module: str) -> bool:
    return any(not isinstance(statement, ast.Expr) for statement in _parse(module).body)


@cache
def _parse(module: str) -> ast.Module:
    return ast.parse(_find_file(module).read_text(encoding="utf-8"))


def _find_file(module: str) -> Path:
    package = module.partition(".")[0]
    root = _ROOT if package == "clipgan" else _find_root(package)
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _find_root(package: str) -> Path:
    """The folder that holds a top-level package; its modules are not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))).parent
