"""A project folder for the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgan.workspace import Workspace
from tests.unit.cli.commands import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project folder with parameters and profiles, no data."""
    workspace = Workspace(tmp_path / "project")
    workspace.profiles.mkdir(parents=True)
    for profile in (ROOT / "profiles").glob("*.yaml"):
        (workspace.profiles / profile.name).write_bytes(profile.read_bytes())
    workspace.params_file.write_bytes((ROOT / "params.yaml").read_bytes())
    (workspace.root / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    return workspace
