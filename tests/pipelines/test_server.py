"""A real Prefect server, started as `clipgan ui prefect` does it: another port, schedules."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from clipgan.cli.process_environment import QUIET_PREFECT, apply_environment
from clipgan.cli.servers import build_command
from clipgan.workspace import Workspace
from tests.pipelines.conftest import PATIENCE, ToyProject, wait_until

ROOT = Path(__file__).parents[2]

DEPLOY = """
import sys
from datetime import timedelta
from prefect.client.orchestration import get_client
from pipelines.evaluation import evaluate_generator

deployment = evaluate_generator.to_deployment("soon", interval=timedelta(hours=1))
deployment.apply()
"""


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def answers(url: str) -> bool:
    try:
        return ask(url) is True
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_on_another_port_schedules_and_runs(toy: ToyProject) -> None:
    """Traps 1 (schedules that silently make no runs) and 2 (a page that asks another port)."""
    port = find_free_port()
    toy.environment.update(QUIET_PREFECT, PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="2")
    apply_environment(toy.root, toy.environment)
    command = build_command("prefect", port, Workspace(toy.root), toy.environment)
    server = subprocess.Popen(
        command,
        cwd=toy.root,
        env=toy.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    api = f"http://127.0.0.1:{port}/api"
    try:
        wait_until(lambda: answers(f"{api}/health"), seconds=PATIENCE)
        assert ask(f"http://127.0.0.1:{port}/ui-settings")["api_url"] == api
        # `clipgan run` finds it by its port.
        done = toy.run("-m", "pipelines", "evaluate")
        assert done.returncode == 0, done.stderr
        names = [run["name"] for run in ask(f"{api}/flows/filter", {})]
        assert names == ["evaluate-generator"]

        toy.environment["PREFECT_API_URL"] = api
        done = toy.run("-c", DEPLOY)
        assert done.returncode == 0, done.stderr
        scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        wait_until(lambda: len(ask(f"{api}/flow_runs/filter", scheduled)) >= 3, seconds=PATIENCE)
        check_shipped_deployment(toy, api)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def check_shipped_deployment(toy: ToyProject, api: str) -> None:
    """prefect.yaml deploys: one run at a time, its schedule off."""
    for arguments in (
        ["work-pool", "create", "clipgan", "--type", "process"],
        ["--no-prompt", "deploy", "--all"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=ROOT,
            env=toy.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    deployment = ask(f"{api}/deployments/name/train-generator/nightly")
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False]
    assert deployment["entrypoint"] == "pipelines/training.py:train_generator"
