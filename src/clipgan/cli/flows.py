"""Start a flow in a process of its own, whose environment is set before Prefect is imported."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from clipgan.cli.error_reports import debug_is_on
from clipgan.cli.process_environment import QUIET_PREFECT, process_environment
from clipgan.stages.resolution_check import check_resolutions
from clipgan.workspace import open_project


def start_flow(name: str) -> NoReturn:
    """Become ``python -m pipelines NAME`` of the project around the working directory.

    params.yaml is read first: a mistake in it ends here, in one line, before anything starts.

    Raises:
        ConfigError: no project here, or a parameter is wrong.
    """
    workspace, params = open_project()
    if not name.startswith("pretrain-"):  # recipes have resolutions of their own
        check_resolutions(params, workspace.root)
    environment = process_environment(workspace.root)
    if not debug_is_on():
        environment.update(QUIET_PREFECT)
    os.chdir(workspace.root)
    sys.stdout.flush()
    # This process becomes the flow, so that signals and the exit status need no relay.
    os.execve(sys.executable, [sys.executable, "-m", "pipelines", name], environment)
