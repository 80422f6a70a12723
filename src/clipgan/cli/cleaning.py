"""``clipgan clean``: removes what earlier runs have left and no run needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from clipgan.artifacts import format_size, measure_size
from clipgan.cli.stage_process import locked_project, remove_recorded_state
from clipgan.resume_state import is_finished, list_states, remove_state
from clipgan.tracking.mlflow_store import resolve_tracking_uri, sqlite_path
from clipgan.workspace import Workspace

_RESULTS = {
    "ingest": "images",
    "features": "features",
    "train": "training",
    "pretrain_mapper": "mapper",
    "pretrain_clip": "clip",
}
"""Stages that keep a state for each fingerprint -> the name of their output in the workspace."""

_CUT_SHORT = re.compile(r"\..+?(?:\.(?P<pid>\d+))?\.(building|old|partial|removed)")
_TEMPORARY = re.compile(r"clipgan-(?:(?P<pid>\d+)|package|model|checkpoint|snapshot)-.+")
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may be removed; ``what`` describes it for people."""

    path: Path
    what: str
    num_bytes: int


def clean(*, yes: bool, dry_run: bool) -> None:
    """List what may be removed, with sizes, and remove it after a yes.

    The state from which the next run resumes is kept. No other process can be writing, because
    this one holds the lock of the workspace.

    Raises:
        ConfigError: no project here.
        PipelineBusyError: another command writes in it.
        RegistryError: the local MLflow store cannot be used.
    """
    with locked_project("clipgan clean") as workspace:
        remove_recorded_state(workspace)
        temporary = find_temporary_folders(Path(tempfile.gettempdir()))
        leftovers = [*find_leftovers(workspace), *temporary]
        models = _find_pending_models(workspace)
        if not leftovers and not models:
            print("nothing to clean")
            return
        _show(workspace, leftovers, models)
        total = format_size(sum(leftover.num_bytes for leftover in leftovers))
        if dry_run or not (yes or _ask(f"remove all this ({total})?")):
            print("nothing was removed; `clipgan clean --yes` removes it without asking")
            return
        for leftover in leftovers:
            _remove(leftover.path)
        _delete_pending_models(workspace, models)
        print(f"removed: {total} are free again")


def find_leftovers(workspace: Workspace) -> Iterator[Leftover]:
    """States older than another state or than the stage's result, and unfinished files."""
    for stage, result in _RESULTS.items():
        states = sorted(list_states(workspace.work(stage)), key=_find_age)
        output = getattr(workspace, result)
        done = _find_age(output) if output.exists() else 0.0
        for index, folder in enumerate(states):
            if index + 1 < len(states) or _find_age(folder) < done:
                yield Leftover(folder, _describe_state(stage, folder), measure_size(folder))
    yield from _find_recipe_leftovers(workspace)
    yield from _find_decoded_images(workspace.work("images"))
    data = workspace.root / "data"
    places = [data, data / ".work", *(path for path in (data / ".work").glob("*") if path.is_dir())]
    for place in places:
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            match = _CUT_SHORT.fullmatch(path.name)
            # `clipgan compare` and `evaluate SUBJECT` write into caches without the lock.
            if match and not (match["pid"] and psutil.pid_exists(int(match["pid"]))):
                yield Leftover(path, "left by a killed process", measure_size(path))


def _find_recipe_leftovers(workspace: Workspace) -> Iterator[Leftover]:
    """Work of recipes whose result is newer: the generator's resolutions, the CLIP's maps."""
    generator, clip = workspace.work("pretrain_generator"), workspace.work("pretrain_clip")
    for result, paths in (
        (workspace.generator, [generator] if generator.exists() else []),
        (workspace.clip, sorted(clip.glob("maps-*.safetensors"))),
    ):
        for path in paths:
            if result.exists() and path.stat().st_mtime < result.stat().st_mtime:
                yield Leftover(path, f"{path.parent.name}, done", measure_size(path))


def _find_decoded_images(store: Path) -> Iterator[Leftover]:
    """All decoded images except those used last; a training that needs others decodes again."""
    # A training that opens them touches the lock.
    folders = sorted(store.glob("*/.lock"), key=lambda lock: lock.stat().st_mtime)
    for lock in folders[:-1]:
        yield Leftover(lock.parent, "decoded images of another training", measure_size(lock.parent))


def find_temporary_folders(folder: Path) -> Iterator[Leftover]:
    """Images and models of evaluations of this user that were killed."""
    for path in sorted(folder.glob("clipgan-*")):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or not path.is_dir() or path.stat().st_uid != os.getuid():
            continue
        if match["pid"] is None:
            is_old = time.time() - path.stat().st_mtime > _DAY_SECONDS
        else:
            is_old = not psutil.pid_exists(int(match["pid"]))
        if is_old:
            yield Leftover(path, "temporary images of a killed process", measure_size(path))


def _find_age(folder: Path) -> float:
    """The last change of a folder or of its checkpoints, Unix time."""
    places = [folder, folder / "checkpoints"]
    return max(place.stat().st_mtime for place in places if place.exists())


def _describe_state(stage: str, folder: Path) -> str:
    checkpoints = sorted(folder.glob("checkpoints/checkpoint-*/checkpoint.json"))
    words = f"{stage}, {'finished' if is_finished(folder) else 'interrupted'}"
    if checkpoints:
        seen = json.loads(checkpoints[-1].read_bytes())["images_seen"]
        words += f" at {seen:,} images"
    return f"{words}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(_find_age(folder)))}"


def _show(workspace: Workspace, leftovers: list[Leftover], models: list[str]) -> None:
    table = Table(box=None, padding=(0, 2))
    for name in ("size", "path", "what"):
        table.add_column(name, justify="right" if name == "size" else "left")
    for leftover in leftovers:
        path = leftover.path
        inside = path.is_relative_to(workspace.root)
        name = workspace.relative(path) if inside else str(path)
        table.add_row(format_size(leftover.num_bytes), name, leftover.what)
    for model in models:
        table.add_row("", model, "MLflow model that was never finished")
    Console(highlight=False, soft_wrap=True).print(table)


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink()
    elif _CUT_SHORT.fullmatch(path.name):
        shutil.rmtree(path)
    else:
        remove_state(path)


def _find_pending_models(workspace: Workspace) -> list[str]:
    """Unfinished models of the local store alone: in a shared store others may be writing them."""
    uri = resolve_tracking_uri(workspace.root, os.environ)
    database = sqlite_path(uri)
    if database is None or not database.exists():
        return []
    from clipgan.tracking.pending_models import list_pending_models

    return list_pending_models(uri)


def _delete_pending_models(workspace: Workspace, models: list[str]) -> None:
    if models:
        from clipgan.tracking.pending_models import delete_models

        delete_models(models, resolve_tracking_uri(workspace.root, os.environ))
