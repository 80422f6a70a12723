"""The command line as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from clipgan.cli.process_environment import process_environment

ROOT = Path(__file__).parents[3]


def run_clipgan(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clipgan", *arguments],
        cwd=folder,
        env=process_environment(ROOT) | {"COLUMNS": "120", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
