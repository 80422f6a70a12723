"""``clipgan register | promote | models``: the registry as commands.

The registry alone decides whether a model is registered and what its role is: an alias that was
moved, or a version that was deleted by hand, counts at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clipgan.artifacts import hash_file, hash_json
from clipgan.config import Params
from clipgan.errors import ConfigError, RegistryError
from clipgan.stages.runs import count_waiting
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.workspace import Workspace, open_project


@dataclass(frozen=True)
class Registered:
    """The project's generator as a version; ``champion``: the model's, None where it has none."""

    model_name: str
    version: int
    champion: int | None
    reason: str
    run_id: str

    @property
    def is_champion(self) -> bool:
        """Whether this very version is the champion."""
        return self.champion == self.version

    def __str__(self) -> str:
        if self.is_champion:
            role = "champion"
        elif self.champion is None:
            role = "challenger (no champion)"
        else:
            role = f"challenger (champion: version {self.champion})"
        return f"{self.model_name} version {self.version}, {role}: {self.reason}"


def register_trained() -> str:
    """Register the project's generator; returns a line to print.

    Raises:
        RegistryError, CheckpointError: see :func:`clipgan.stages.register.register`.
    """
    from clipgan.stages.register import register_generator

    workspace, params = open_project()
    state = compute_state(params, workspace)
    report = register_generator(params, workspace, state)
    # What the registry has now, not what the gate decided.
    known = find_registered(params, workspace)
    return str(known) if known is not None else f"{report.model_name}: {report.decision.reason}"


def promote_by_hand(version: str) -> str:
    """Make ``version`` the champion, whatever the gate said; returns a line to print.

    Raises:
        ConfigError: ``version`` is no number.
        RegistryError: there is no such version.
    """
    from clipgan.tracking.promotion import promote_version

    if not version.isdigit():
        raise ConfigError(f"version = {version!r}: give a number; `clipgan models` lists them")
    workspace, params = open_project()
    name = params.register_model.model_name
    decision = promote_version(
        name,
        int(version),
        reason="clipgan promote",
        tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
    )
    if not decision.promoted:
        return f"{name}: {decision.reason}"
    before = decision.champion_version
    instead = "" if before is None else f" instead of version {before}"
    return f"{name}: version {version} is champion{instead}"


def print_models() -> None:
    """A table of the registered versions, newest first."""
    from rich.console import Console
    from rich.table import Table

    from clipgan.tracking.versions import list_versions

    workspace, params = open_project()
    name, metric = params.register_model.model_name, params.register_model.gate_metric
    uri = resolve_tracking_uri(workspace.root, os.environ)
    versions = list_versions(name, tracking_uri=uri)
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
    """The version of the project's generator and evaluation; None where registering has work to
    do: there is no such version, its files or its alias are gone, or the gate's settings differ.

    Raises:
        RegistryError: the registry cannot be read.
    """
    from clipgan.tracking.versions import look_up

    name = params.register_model.model_name
    uri = resolve_tracking_uri(workspace.root, os.environ)
    view = look_up(name, compute_state(params, workspace), tracking_uri=uri)
    known, champion = view.registered, view.champion
    if known is None or not known.has_files or known.version not in (champion, view.challenger):
        return None
    if known.promoted and champion is None:
        return None
    return Registered(name, known.version, champion, known.reason, known.run_id)


@contextmanager
def explained_outage(workspace: Workspace) -> Iterator[None]:
    """Explain what is left to do when the registry cannot be used after a run's last stage.

    Raises:
        RegistryError: the block's, with what is kept, what waits, and what to do.
    """
    try:
        yield
    except RegistryError as error:
        waiting = count_waiting(workspace)
        also = f" and sends the {waiting} that wait" if waiting.records else ""
        raise RegistryError(
            f"the generator is not registered: {error}. Its training and evaluation are complete, "
            f"in {workspace.relative(workspace.training)} and "
            f"{workspace.relative(workspace.evaluation)}. Once the store can be used again, "
            f"`clipgan run` registers it{also}; it trains nothing again"
        ) from error


def find_champion(params: Params, workspace: Workspace) -> int | None:
    """The version that is champion now.

    Raises:
        RegistryError: the registry cannot be read.
    """
    from clipgan.tracking.versions import look_up

    uri = resolve_tracking_uri(workspace.root, os.environ)
    return look_up(params.register_model.model_name, "", tracking_uri=uri).champion


def compute_state(params: Params, workspace: Workspace) -> str:
    """Hash of all that a registration depends on: generator, evaluation, the gate's settings."""
    files = (workspace.training / "bundle.json", workspace.evaluation / "evaluation.json")
    return hash_json(
        {
            "files": [hash_file(path) if path.is_file() else None for path in files],
            "register": params.register_model.model_dump(mode="json"),
        }
    )
