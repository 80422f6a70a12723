"""Relative links in the Markdown files lead to files that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def _pages() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return listed.stdout.split()


@pytest.mark.parametrize("page", _pages())
def test_links_lead_somewhere(page: str) -> None:
    links = LINK.findall(Path(page).read_text(encoding="utf-8"))
    local = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    missing = [link for link in local if not (Path(page).parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_named_files_are_there(page: str) -> None:
    text = Path(page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|pipelines|tests|docs|recipes)/[^`\s]*)`", text)
    assert len(named) >= 10
    assert not [name for name in named if not Path(name).exists()]


def test_the_twelve_questions_have_answers() -> None:
    section = Path("CONTRIBUTING.md").read_text().split("## Where is what")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 12
    for row in rows:
        assert re.search(r"`(src/|dvc\.yaml)", row), row
