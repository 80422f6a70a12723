"""``python -m pipelines NAME``: a flow at a terminal; what ``clipgan run`` becomes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from clipgan.cli.dvc_graph import Freshness, open_graph
from clipgan.cli.error_reports import accept_any_encoding, exit_on_sigterm, reported_errors
from clipgan.cli.models import Registered, explained_outage, find_registered
from clipgan.cli.process_environment import apply_environment, process_environment
from clipgan.cli.stage_process import remove_recorded_state
from clipgan.cli.workspace_lock import workspace_lock
from clipgan.config import load_params
from clipgan.errors import ConfigError
from clipgan.stages.runs import is_anything_waiting
from clipgan.workspace import Workspace, find_workspace
from pipelines.console import RunConsole, run_console
from pipelines.temporary_server import is_healthy, start_temporary_server

FLOWS = ("train", "evaluate", "pretrain-clip", "pretrain-generator", "pretrain-mapper")


def main(arguments: list[str]) -> None:
    """Run the named flow of the project around the working directory.

    Raises:
        ConfigError: no such flow, or the Prefect server that was named does not answer.
        KeyboardInterrupt: Ctrl-C; the flow run is Cancelled.
        PipelineBusyError: another pipeline runs in this project.
        StageFailedError: a stage failed.
    """
    if len(arguments) != 1 or arguments[0] not in FLOWS:
        raise ConfigError(f"flow {' '.join(arguments)!r}: choose one of {', '.join(FLOWS)}")
    name = arguments[0]
    workspace = find_workspace(Path.cwd())
    apply_environment(workspace.root)
    server = find_server()
    with run_console() as console:
        registered = _find_finished(workspace) if name == "train" and server is None else None
        if registered is not None:
            # Nothing to do: starting a server to record that would take longer than the check.
            console.console.print("nothing to do: every stage is up to date")
            console.finish_run(workspace, registered)
            return
        if server is None:
            console.console.print("[dim]starting a Prefect server for this run[/]")
            server = start_temporary_server(workspace.root)
        # Before Prefect is imported: it reads its settings then.
        os.environ["PREFECT_API_URL"] = server
        from prefect.exceptions import CancelledRun

        try:
            _run_flow(name, workspace, console)
        except CancelledRun:
            raise KeyboardInterrupt from None


def find_server() -> str | None:
    """Address of the Prefect server to use: the one named in the environment, or this machine's.

    None: there is none.

    Raises:
        ConfigError: a server is named and does not answer.
    """
    named = os.environ.get("PREFECT_API_URL")
    port = os.environ.get("PREFECT_SERVER_API_PORT", "4200")
    address = named or f"http://127.0.0.1:{port}/api"
    if named is not None and urlsplit(named).scheme == "https":
        return named  # may need an API key, which only Prefect knows
    healthy = is_healthy(address)
    if named is not None and not healthy:
        raise ConfigError(
            f"PREFECT_API_URL = {named!r}: no Prefect server answers there; "
            "start it (clipgan ui prefect) or unset the variable"
        )
    return address if healthy else None


def _find_finished(workspace: Workspace) -> Registered | None:
    """The registered model if a run would do nothing; checked without Prefect and MLflow."""
    params = load_params(workspace.params_file)
    root = workspace.root
    with workspace_lock(root, "clipgan run"):
        if not workspace.dvc_lock.exists():
            return None
        with open_graph(root) as graph:
            freshness = graph.list_freshness()
        always = [name for name, state in freshness.items() if state is Freshness.ALWAYS]
        if Freshness.STALE in freshness.values() or not _repeat(root, always):
            return None
        # State that a `dvc repro` outside of a flow has left.
        remove_recorded_state(workspace)
        with open_graph(root) as graph:
            if Freshness.STALE in graph.list_freshness().values():
                return None
        # The flow has to send what waits for MLflow.
        if is_anything_waiting(workspace):
            return None
        with explained_outage(workspace):
            return find_registered(params, workspace)


def _repeat(root: Path, stages: list[str]) -> bool:
    """Run the stages that DVC runs every time, in one command, because DVC takes a second to start.

    Returns False where one failed; the flow runs it again and reports the error.
    """
    from pipelines.processes import stream

    environment = process_environment(root)
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *stages]
    return not stages or not stream(
        command, lambda _line: None, folder=root, environment=environment
    )


def _run_flow(name: str, workspace: Workspace, console: RunConsole) -> None:
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    project = str(workspace.root)
    if name.startswith("pretrain-"):
        from pipelines.pretraining import pretrain_clip, pretrain_generator, pretrain_mapper

        recipes = {
            "pretrain-clip": pretrain_clip,
            "pretrain-generator": pretrain_generator,
            "pretrain-mapper": pretrain_mapper,
        }
        recipes[name](project)
        return
    if name == "evaluate":
        from pipelines.evaluation import evaluate_generator

        evaluate_generator(project)
        console.finish_run(workspace, None)
        return
    from pipelines.training import train_generator

    train_generator(project)
    console.finish_run(workspace, find_registered(load_params(workspace.params_file), workspace))


if __name__ == "__main__":
    exit_on_sigterm()
    accept_any_encoding()
    with reported_errors():
        main(sys.argv[1:])
