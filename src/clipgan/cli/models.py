"""``clipgan register | promote | models``: the registry as commands.

``mlruns/registered.json`` keeps what the last registration said and for which state of the project,
so that a run with nothing to do need not ask MLflow (two seconds and 170 MB to import). It lies
beside the local store and goes when that goes; a remote store is always asked.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipgan.artifacts import hash_json, write_json
from clipgan.config import Params, load_params
from clipgan.errors import ConfigError
from clipgan.stages.catalog import Workspace, find_workspace, register_generator
from clipgan.tracking.environment import resolve_tracking_uri, sqlite_path


@dataclass(frozen=True)
class Registered:
    """The last registration: ``key`` is the state of the project that it belongs to."""

    key: str
    model_name: str
    version: int
    promoted: bool
    is_champion: bool
    reason: str
    run_id: str

    def __str__(self) -> str:
        role = "champion" if self.is_champion else "challenger"
        return f"{self.model_name} version {self.version}, {role}: {self.reason}"


def registered_file(workspace: Workspace) -> Path:
    """Where the last registration is kept."""
    return workspace.mlruns / "registered.json"


def register_trained() -> Registered:
    """Register the project's generator; keeps the outcome for :func:`find_registered`.

    Raises:
        RegistryError, CheckpointError: see :func:`clipgan.stages.catalog.register_generator`.
    """
    workspace, params = _open_project()
    report = register_generator(params, workspace)
    decision = report.decision
    outcome = Registered(
        key=compute_state_key(params, workspace),
        model_name=report.model_name,
        version=report.version,
        promoted=decision.promoted,
        is_champion=decision.promoted or decision.champion_version == report.version,
        reason=decision.reason,
        run_id=report.run_id,
    )
    write_json(registered_file(workspace), asdict(outcome))
    return outcome


def promote_version(version: str) -> str:
    """Make ``version`` the champion; gives a line to print.

    Raises:
        ConfigError: ``version`` is no number.
        RegistryError: there is no such version.
    """
    from clipgan.tracking import registry

    if not version.isdigit():
        raise ConfigError(f"version = {version!r}: give a number; `clipgan models` lists them")
    workspace, params = _open_project()
    name = params.register_model.model_name
    decision = registry.promote_version(
        name,
        int(version),
        reason="clipgan promote",
        tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
    )
    # What it says about the champion is no longer true.
    registered_file(workspace).unlink(missing_ok=True)
    if not decision.promoted:
        return f"{name}: {decision.reason}"
    before = decision.champion_version
    instead = "" if before is None else f" instead of version {before}"
    return f"{name}: version {version} is champion{instead}"


def print_models() -> None:
    """A table of the registered versions, newest first."""
    from rich.console import Console
    from rich.table import Table

    from clipgan.tracking import registry

    workspace, params = _open_project()
    name, metric = params.register_model.model_name, params.register_model.gate_metric
    uri = resolve_tracking_uri(workspace.root, os.environ)
    versions = registry.list_versions(name, tracking_uri=uri)
    if not versions:
        print(f"{name} has no version yet; `clipgan run` makes one")
        return
    table = Table("version", "alias", "value", "made (UTC)", "gate", title=f"{name}, by {metric}")
    for row in versions:
        value = row.metrics.get(metric, math.nan)
        table.add_row(
            str(row.version),
            ", ".join(row.aliases),
            "" if math.isnan(value) else f"{value:.4g}",
            f"{row.created:%Y-%m-%d %H:%M}",
            row.reason,
        )
    Console().print(table)


def find_registered(params: Params, workspace: Workspace) -> Registered | None:
    """The last registration if nothing that it rests on has changed since, without MLflow."""
    database = sqlite_path(resolve_tracking_uri(workspace.root, os.environ))
    if database is None or not database.exists():
        return None
    return load_registered(params, workspace)


def load_registered(params: Params, workspace: Workspace) -> Registered | None:
    """What the last registration said, if it was of the present state of the project."""
    path = registered_file(workspace)
    if not path.exists():
        return None
    try:
        outcome = Registered(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None  # damaged or of another version: registering again is idempotent
    return outcome if outcome.key == compute_state_key(params, workspace) else None


def compute_state_key(params: Params, workspace: Workspace) -> str:
    """Hash of what a registration rests on: DVC's versions of all data, the gate, the store."""
    lock = workspace.dvc_lock
    state: dict[str, Any] = {
        "dvc.lock": lock.read_text(encoding="utf-8") if lock.exists() else "",
        "register": params.register_model.model_dump(mode="json"),
        "store": resolve_tracking_uri(workspace.root, os.environ),
    }
    return hash_json(state)


def _open_project() -> tuple[Workspace, Params]:
    workspace = find_workspace(Path.cwd())
    return workspace, load_params(workspace.params_file)
