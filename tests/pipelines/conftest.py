"""A small DVC project whose stages do what a test tells them, and one Prefect server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clipgan.cli.process_environment import (
    ALWAYS,
    UNLESS_SET,
    apply_environment,
    process_environment,
)
from pipelines.temporary_server import start_temporary_server
from tests.params import tree_with

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 240.0
"""Seconds until a test gives up: for a machine that does ten other things."""

DVC_YAML = """
stages:
  look:
    cmd: python toy.py look
    always_changed: true
    outs: [data/look]
  first:
    cmd: python toy.py first
    deps: [data/look]
    params: [ingest]
    outs: [data/first]
  second:
    cmd: python toy.py second
    deps: [data/first]
    params: [evaluate]
    outs: [data/second]
"""

TOY = """
import os, subprocess, sys, time
from pathlib import Path

name = sys.argv[1]
with open("runs.log", "a") as log:
    log.write(name + "\\n")
mode = Path("mode-" + name)
mode = mode.read_text() if mode.exists() else ""
print(name + " 1/2 images", flush=True)
if mode == "fail":
    print("error: " + name + ".x = 7: use a smaller one", file=sys.stderr)
    sys.exit(2)
if mode == "crash":
    raise RuntimeError("unforeseen")
if mode == "killed once" and not Path("killed").exists():
    Path("killed").touch()
    os.kill(os.getpid(), 9)
if mode == "save slowly":
    import signal
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    Path("pids").write_text(f"{os.getpid()} {os.getpid()}")
    while not asked:
        time.sleep(0.05)
    for part in range(60):
        print("saving", part, flush=True)
        time.sleep(0.2)
    Path("saved").touch()
    sys.exit(143)
if mode == "sleep":
    # A child too: the whole tree must go.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
Path("data").mkdir(exist_ok=True)
Path("data", name).write_text(Path("params.yaml").read_text() if name != "look" else "same")
print(name + " 2/2 images", flush=True)
"""


@dataclass(frozen=True)
class ToyProject:
    """``modes`` of the stages are files that DVC does not know."""

    root: Path
    environment: dict[str, str] = field(repr=False)

    def set_mode(self, stage: str, mode: str) -> None:
        (self.root / f"mode-{stage}").write_text(mode)

    def set_params(self, changes: dict[str, Any] | None = None) -> None:
        """The project's own parameters with some changed: ``first`` reads the section ingest,
        ``second`` reads evaluate."""
        with (self.root / "params.yaml").open("w") as handle:
            YAML().dump(tree_with(changes), handle)

    def take_runs(self) -> list[str]:
        """Stages that ran since the last call."""
        log = self.root / "runs.log"
        runs = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return runs

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def wait_for_pids(self) -> list[int]:
        """Processes of the sleeping stage, once it sleeps."""
        path = self.root / "pids"
        wait_until(lambda: path.exists() and len(path.read_text().split()) == 2, seconds=PATIENCE)
        return [int(pid) for pid in path.read_text().split()]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[ToyProject]:
    """A git and DVC repository with three stages, nothing run yet."""
    root = tmp_path / "toy"
    root.mkdir()
    environment = {
        name: value
        for name, value in process_environment(root).items()
        # Neither the session's server nor one of the person who runs the tests.
        if not name.startswith("PREFECT_")
    }
    apply_environment(root, environment)
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    project = ToyProject(root, environment)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "toy.py").write_text(TOY)
    project.set_params()
    (root / ".gitignore").write_text(
        "/mode-*\n/pids\n/saved\n/killed\n/runs.log\n/data\n/mlruns\n/.prefect\n"
    )
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "add", "--all"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "toy"],
    ):
        subprocess.run(command, cwd=root, env=environment, check=True)
    yield project
    pids = root / "pids"
    for pid in pids.read_text().split() if pids.exists() else []:
        if is_running(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one Prefect server for the whole session; flows in this process use it."""
    root = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        settings = ALWAYS | UNLESS_SET | {"PREFECT_HOME": str(root / ".prefect")}
        for name, value in settings.items():
            patch.setenv(name, value)
        address = start_temporary_server(root)
        patch.setenv("PREFECT_API_URL", address)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        # Prefect may have been imported, and its settings read, by now.
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
