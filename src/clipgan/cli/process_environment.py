"""The only place that sets environment variables for Prefect, DVC and MLflow.

Every process of a pipeline (the flow, ``dvc repro``, a stage, the two servers) starts with these.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

ALWAYS = {
    # Nothing phones home. MLflow takes only "true" for DO_NOT_TRACK, Prefect also takes 1.
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    # Models are safetensors; MLflow would unpickle by default.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # Progress lines reach the flow when they are printed, not when a buffer is full.
    "PYTHONUNBUFFERED": "1",
}
"""Set whatever the user's shell says."""

UNLESS_SET = {
    # Without a running server each flow starts its own: 14 s quiet, 34 s on a busy machine, and
    # the first one of all migrates a database; Prefect gives up after 20 s by itself.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # 2 processes and 0.5 GB instead of 10 and 2.2 GB.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # No `uv export` and no `pip install --dry-run` while a model is logged.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Defaults a user may override in the shell."""

QUIET_PREFECT = {
    # The flow prints its own lines; Prefect's log lines go to its server only.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
}
"""For ``clipgan run`` and its siblings; a worker's console stays Prefect's."""


def apply_environment(
    root: Path, environment: MutableMapping[str, str] | None = None
) -> MutableMapping[str, str]:
    """Write the block for the project at ``root`` into ``environment`` (default: this process).

    Prefect's home becomes ``.prefect/`` in the project, so that a database of another Prefect
    version elsewhere on the machine is never migrated or refused; ``PREFECT_HOME`` overrides it.
    """
    target = os.environ if environment is None else environment
    target.update(ALWAYS)
    for name, value in {**UNLESS_SET, "PREFECT_HOME": str(root / ".prefect")}.items():
        target.setdefault(name, value)
    return target


def process_environment(root: Path) -> dict[str, str]:
    """Environment of a process of the project at ``root`` that finds this Python and this tree.

    An editable install points at one checkout; ``src`` of ``root`` comes first so that a worktree
    runs its own code. The running Python's folder leads ``PATH``: dvc.yaml says ``python``.
    """
    environment = dict(os.environ)
    apply_environment(root, environment)
    source = root / "src"
    if (source / "clipgan").is_dir():
        environment["PYTHONPATH"] = _prepend(source, environment.get("PYTHONPATH"))
    environment["PATH"] = _prepend(Path(sys.executable).parent, environment.get("PATH"))
    return environment


def _prepend(folder: Path, paths: str | None) -> str:
    parts = [part for part in (paths or "").split(os.pathsep) if part and part != str(folder)]
    return os.pathsep.join([str(folder), *parts])
