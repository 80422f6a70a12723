"""What documents and packaging say of the project is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clipgan.config import read_profile

ROOT = Path(__file__).parents[2]


def find_value(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        tree = tree[key]
    return tree


def list_choices() -> list[tuple[str, str, str]]:
    """Key, default and value in lafite-official, of the table of docs/lafite.md."""
    rows = []
    for line in (ROOT / "docs" / "lafite.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not cells[0].startswith("["):
            continue
        keys, defaults, officials = (
            [part.strip("` ") for part in cell.split(",")] for cell in cells[1:]
        )
        if len(keys) == len(defaults) == len(officials):
            rows += list(zip(keys, defaults, officials, strict=True))
    return rows


def test_the_table_of_choices_is_read() -> None:
    assert len(list_choices()) >= 10
    assert "pseudo_text.noise_level" in {key for key, _, _ in list_choices()}


@pytest.mark.parametrize(("key", "default", "official"), list_choices())
def test_documented_choices_are_those_of_the_profiles(
    key: str, default: str, official: str
) -> None:
    yaml = YAML(typ="safe", pure=True)
    for text, profile in ((default, "emoji"), (official, "lafite-official")):
        tree = yaml.load(read_profile(ROOT / "profiles" / f"{profile}.yaml"))
        assert yaml.load(text) == find_value(tree["train"], key)


def test_every_extra_has_code_that_uses_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    sources = [
        path.read_text()
        for folder in ("src", "bench", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for extra, requirements in extras.items():
        for requirement in requirements if extra != "dev" else ():
            module = re.split(r"[^\w-]", requirement)[0].replace("-", "_")
            used = re.compile(rf"^\s*(import|from) {module}\b|[\"']{module}[\"'.]", re.MULTILINE)
            assert any(map(used.search, sources)), f"{extra}: {requirement}"
