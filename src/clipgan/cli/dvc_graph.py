"""The stages in order, and which of them are stale. DVC alone decides that.

DVC's Python API is used, because a ``dvc`` command takes a second and a call 15 to 90 ms a stage.
It is called from the main thread only: DVC's locks give up after three seconds of competition.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from clipgan.cli.error_reports import debug_is_on
from clipgan.errors import ClipganError, ConfigError, PipelineBusyError
from clipgan.workspace import RECIPES

PIPELINE = "dvc.yaml"


class Freshness(StrEnum):
    """What a run would do with a stage."""

    FRESH = "up to date"
    STALE = "to do"
    ALWAYS = "every run"


@dataclass(frozen=True)
class StageGraph:
    """The stages of dvc.yaml, of a repository that :func:`open_graph` has opened."""

    repository: Any

    def list_stages(self, recipe: str | None = None) -> list[str]:
        """Addresses of the pipeline's stages, or of a recipe and the stages that it needs. Each
        stage comes after those that it depends on."""
        import networkx

        stages = self._ordered(PIPELINE if recipe is None else None)
        if recipe is not None:
            graph = self.repository.index.graph  # edges point from a stage to what it needs
            last = next(stage for stage in stages if stage.addressing == f"{RECIPES}:{recipe}")
            stages = [s for s in stages if s in networkx.descendants(graph, last) | {last}]
        return [stage.addressing for stage in stages]

    def describe_stages(self) -> dict[str, str]:
        """The ``desc`` of every stage."""
        return {stage.addressing: stage.desc or "" for stage in self._ordered()}

    def is_stale(self, name: str) -> bool:
        """Whether DVC would now run ``name`` or restore it from its run cache."""
        # The text that a dry run prints is misleading, its return value is right.
        return bool(self.repository.reproduce(name, single_item=True, dry=True))

    def list_freshness(self) -> dict[str, Freshness]:
        """Every stage in order, with what a run would do.

        A stage that depends on a stale one is stale. A stage that runs every time tells nothing
        about later ones, unless its output is missing because it failed: DVC cannot check a stage
        whose input does not exist.
        """
        import networkx

        graph = self.repository.index.graph  # edges point from a stage to what it needs
        freshness: dict[str, Freshness] = {}
        for stage in self._ordered():
            needed = {other.addressing for other in networkx.descendants(graph, stage)}
            if stage.always_changed:
                whole = all(out.exists for out in stage.outs)
                freshness[stage.addressing] = Freshness.ALWAYS if whole else Freshness.STALE
            elif any(freshness.get(other) == Freshness.STALE for other in needed):
                freshness[stage.addressing] = Freshness.STALE
            else:
                stale = self.is_stale(stage.addressing)
                freshness[stage.addressing] = Freshness.STALE if stale else Freshness.FRESH
        return freshness

    def _ordered(self, file: str | None = PIPELINE) -> list[Any]:
        import networkx

        graph = self.repository.index.graph
        ordered = reversed(list(networkx.lexicographical_topological_sort(graph, key=str)))
        return [s for s in ordered if s.cmd and file in (None, Path(s.path_in_repo).as_posix())]


@contextlib.contextmanager
def open_graph(root: Path) -> Iterator[StageGraph]:
    """DVC's present view of the project at ``root``.

    Raises:
        PipelineBusyError: another DVC command holds files of a stage.
        ConfigError: dvc.yaml, dvc.lock or params.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.DEBUG if debug_is_on() else logging.CRITICAL)
    # DVC resolves stage names against the working directory.
    with contextlib.chdir(root):
        try:
            with Repo(str(root)) as repository:
                yield StageGraph(repository)
        except (LockError, DvcException) as error:
            raise _explain(error, root) from error


def describe_blockers(text: str) -> str | None:
    """Which process uses a stage's files, from DVC's output; None where DVC does not say that."""
    busy = re.search(r"'([^'\n]+)' is busy, it is being blocked by:", text)
    if busy is None:
        return None
    holders = re.findall(r"\(PID (\d+)\): (.*)", text)
    names = ", ".join(f"`{command.strip()}` (process {pid})" for pid, command in holders)
    return f"{busy[1]} is in use by {names}: wait for it, or stop it, and run again"


def _explain(error: BaseException, root: Path) -> ClipganError:
    from dvc.lock import LockError
    from dvc.scm import SCMError

    # "failed to reproduce 'x'" has its reason in the chain of causes.
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SCMError) and "not a git repository" in str(error):
        return ConfigError(
            f"{root}: no git repository, as in a downloaded ZIP: run `git init` here, then the "
            "same command again"
        )
    if isinstance(error, LockError):
        return PipelineBusyError(
            describe_blockers(str(error))
            or f"another dvc command runs in {root}: wait for it and run again"
        )
    words = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(f"{root}: DVC cannot go on: {words}")
