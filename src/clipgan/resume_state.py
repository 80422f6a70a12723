"""The state that a stage resumes from, kept until dvc.lock names the stage's result.

DVC removes a stage's outputs before it runs the stage and writes dvc.lock after it. A process that
dies between the two leaves an output that the next run deletes: only this state brings it back
without doing the work again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from clipgan.artifacts import write_json

FINISHED_FILE = "finished.json"
LOG_FILE, LOG_FOLDER = "mlflow.json", "spool"
RECORDS_FILE, POSITION_FILE = "records.jsonl", "position.json"
"""Files of the run logger: the run's header; a folder with what was logged and what was sent."""
REMOVED_SUFFIX = ".removed"
_NAME = re.compile(r"[0-9a-f]{16}")


def mark_finished(folder: Path, output: Path) -> None:
    """Note in the state ``folder`` that the work is done: its result is ``output``, a folder."""
    write_json(folder / FINISHED_FILE, {"output": hash_like_dvc(output)})


def is_finished(folder: Path) -> bool:
    """Whether :func:`mark_finished` was called for the state ``folder``."""
    return (folder / FINISHED_FILE).is_file()


def remove_recorded(work: Path, dvc_lock: Path) -> list[Path]:
    """Remove the states in ``work`` whose results the file ``dvc_lock`` names; returns their paths.

    DVC's cache holds such a result. What was logged and waits to be sent is kept.
    """
    for leftover in [*work.glob(f".*{REMOVED_SUFFIX}"), *work.glob(f"*/.*{REMOVED_SUFFIX}")]:
        shutil.rmtree(leftover)
    lock = dvc_lock.read_text(encoding="utf-8") if dvc_lock.exists() else ""
    recorded = [
        folder
        for folder in list_states(work)
        if is_finished(folder) and _read_output(folder) in lock
    ]
    for folder in recorded:
        remove_state(folder)
    return recorded


def remove_abandoned(work: Path) -> None:
    """Remove the states in ``work`` of runs that were interrupted and never went on."""
    for folder in list_states(work):
        if not is_finished(folder):
            remove_folder(folder)


def list_states(work: Path) -> list[Path]:
    """The folders in ``work`` that are named by a fingerprint and hold more than a log."""
    folders = [path for path in work.glob("*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return [folder for folder in folders if _list_own(folder)]


def remove_state(folder: Path) -> None:
    """Remove a state; what was logged is kept where it has not all been sent."""
    if not has_waiting(folder):
        remove_folder(folder)
        return
    # The marker last, so that an interrupted removal is continued the next time.
    for path in sorted(_list_own(folder), key=lambda path: path.name == FINISHED_FILE):
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink()


def remove_folder(folder: Path) -> None:
    """Remove a folder; an interrupted removal leaves nothing under its name."""
    doomed = folder.with_name(f".{folder.name}{REMOVED_SUFFIX}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def has_waiting(folder: Path) -> bool:
    """Whether MLflow has yet to take something of the run logged in ``folder``; reads it only."""
    records = folder / LOG_FOLDER / RECORDS_FILE
    position = folder / LOG_FOLDER / POSITION_FILE
    if not records.exists():
        return False
    if not position.exists():
        return records.stat().st_size > 0
    try:
        return bool(records.stat().st_size > json.loads(position.read_text())["bytes"])
    except (ValueError, KeyError, TypeError):
        return True


def hash_like_dvc(folder: Path) -> str:
    """What DVC 3 writes as ``md5`` of an output folder: MD5 over the list of its files' MD5s."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = [
        {"md5": _hash_file_md5(path), "relpath": path.relative_to(folder).as_posix()}
        for path in files
    ]
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(listing.encode()).hexdigest() + ".dir"


def _list_own(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in (LOG_FOLDER, LOG_FILE)]


def _read_output(folder: Path) -> str:
    return str(json.loads((folder / FINISHED_FILE).read_bytes())["output"])


def _hash_file_md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()
