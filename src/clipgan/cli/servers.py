"""Starts the web pages of MLflow and Prefect on the loopback interface."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from clipgan.cli.process_environment import process_environment
from clipgan.errors import ConfigError
from clipgan.tracking.local_store import rebase_artifacts
from clipgan.tracking.mlflow_store import artifact_location, resolve_tracking_uri, sqlite_path
from clipgan.workspace import Workspace, find_workspace

HOST = "127.0.0.1"
PORTS = {"mlflow": 5000, "prefect": 4200}


def serve(name: str, port: int | None) -> NoReturn:
    """Become the server ``name`` of the project around the working directory.

    Raises:
        ConfigError: no project here, or the port is taken.
    """
    workspace = find_workspace(Path.cwd())
    chosen = port or PORTS[name]
    _check_port(chosen)
    environment = process_environment(workspace.root)
    command = build_command(name, chosen, workspace, environment)
    print(f"{name}: http://{HOST}:{chosen}  (Ctrl-C ends it)", flush=True)
    os.chdir(workspace.root)
    os.execve(sys.executable, command, environment)


def build_command(
    name: str, port: int, workspace: Workspace, environment: dict[str, str]
) -> list[str]:
    """Command line of a server; adds what it reads from the environment to ``environment``."""
    if name == "prefect":
        # With the option --port the page would request its data from port 4200.
        environment["PREFECT_SERVER_API_HOST"] = HOST
        environment["PREFECT_SERVER_API_PORT"] = str(port)
        (workspace.root / ".prefect").mkdir(exist_ok=True)
        return [sys.executable, "-m", "prefect", "server", "start"]
    uri = resolve_tracking_uri(workspace.root, environment)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    if (database := sqlite_path(uri)) is not None:
        workspace.mlruns.mkdir(exist_ok=True)
        if database.exists():
            rebase_artifacts(database)
        command += ["--artifacts-destination", str(artifact_location(uri))]
    return [*command, "--host", HOST, "--port", str(port), "--workers", "1"]


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigError(
                f"port {port} is taken on {HOST}: give another one with --port"
            ) from None
