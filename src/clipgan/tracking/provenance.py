"""Where a run came from: git commit, DVC stage, Prefect flow run, this very process."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from clipgan.artifacts import hash_file

COMMIT_TAG = "mlflow.source.git.commit"
DIRTY_TAG = "clipgan.git_dirty"
HOST_TAG = "clipgan.host"
PID_TAG = "clipgan.pid"
PROCESS_STARTED_TAG = "clipgan.process_started"

_TAG_OF_VARIABLE = {
    "DVC_STAGE": "clipgan.dvc_stage",
    "DVC_EXP_NAME": "clipgan.dvc_exp_name",
    "PREFECT__FLOW_RUN_ID": "clipgan.prefect_flow_run_id",
}
_GIT_SECONDS = 20
_CLOCK_TOLERANCE_SECONDS = 5.0
"""The start of a process is known relative to boot, whose date moves with the clock."""


def collect_run_tags(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run started in the project at ``root``: git state, DVC stage, Prefect flow run.

    What is missing (no git, no commit yet, no flow) gets no tag.
    """
    tags = read_git_state(root)
    for variable, tag in _TAG_OF_VARIABLE.items():
        if environment.get(variable):
            tags[tag] = environment[variable]
    return tags


def read_git_state(root: Path) -> dict[str, str]:
    """Commit, and whether tracked files differ from it; empty outside a repository."""
    commit = _run_git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return {}
    changes = _run_git(root, "status", "--porcelain", "--untracked-files=no")
    tags = {COMMIT_TAG: commit}
    if changes is not None:
        tags[DIRTY_TAG] = str(bool(changes)).lower()
    return tags


def read_data_digest(folder: Path) -> str:
    """The fingerprint in a data folder's ``manifest.json``, or the hash of that file."""
    manifest = folder / "manifest.json"
    fingerprint = json.loads(manifest.read_text(encoding="utf-8")).get("fingerprint")
    return fingerprint if isinstance(fingerprint, str) else hash_file(manifest)


def describe_process() -> dict[str, str]:
    """Tags that tell later whether the process that holds a run is still alive."""
    process = psutil.Process()
    return {
        HOST_TAG: platform.node(),
        PID_TAG: str(process.pid),
        PROCESS_STARTED_TAG: f"{process.create_time():.2f}",
    }


def is_process_dead(tags: Mapping[str, str]) -> bool:
    """Whether the process named by :func:`describe_process` is certainly gone.

    False for a process of another host and for incomplete tags, where this cannot be known.
    """
    if tags.get(HOST_TAG) != platform.node() or not tags.get(PID_TAG, "").isdigit():
        return False
    try:
        process = psutil.Process(int(tags[PID_TAG]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # The number may have been given to another process since.
        started = float(tags.get(PROCESS_STARTED_TAG, "0"))
        return bool(abs(process.create_time() - started) > _CLOCK_TOLERANCE_SECONDS)
    except psutil.NoSuchProcess:
        return True


def _run_git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
