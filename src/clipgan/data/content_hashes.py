"""SHA-256 of files, read once: a file that looks as it did when it was read is not read again.

"Looks" is path, size, times of change and inode. They stay in a file of their own, outside of all
artifacts, so that what is made depends on contents alone; it may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from clipgan.artifacts import hash_file, write_bytes
from clipgan.progress import progress_bar

SETTLED_SECONDS = 2.0
"""A file changed later than this before it was read may change again within one tick of the file
system's clock, and look the same: it is not remembered. FAT's clock has the longest tick."""

SHOWN_FROM = 1000
"""Fewer files need no progress bar."""

_Look = list[int]


def hash_files(
    files: Sequence[tuple[Path, os.stat_result]], remembered: Path | None
) -> list[str | None]:
    """The hash of each file, in their order; None where one cannot be read.

    Args:
        files: with their status as of now.
        remembered: file of looks and hashes, made or replaced; None: everything is read.
    """
    known = _load(remembered)
    looks = [_describe(status) for _, status in files]
    keys = [os.fspath(path.absolute()) for path, _ in files]
    found: dict[str, tuple[_Look, str]] = {}
    unread = []
    for key, look in zip(keys, looks, strict=True):
        if key in known and known[key][0] == look:
            found[key] = known[key]
        else:
            unread.append((key, look))
    lasting = dict(found)
    try:
        shown = len(unread) >= SHOWN_FROM
        with progress_bar("look", len(unread), "new files", shown=shown) as bar:
            for key, look in unread:
                bar.advance()
                digest = _read_hash(Path(key))
                if digest is not None:
                    found[key] = look, digest
                    if _is_settled(Path(key), look):
                        lasting[key] = found[key]
    finally:
        # Stopped half-way: what was read need not be read again.
        if remembered is not None and lasting != known:
            write_bytes(remembered, json.dumps(lasting).encode())
    return [found[key][1] if key in found else None for key in keys]


def _read_hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None  # the ingest report names it


def _describe(status: os.stat_result) -> _Look:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_settled(path: Path, look: _Look) -> bool:
    try:
        unchanged = _describe(path.stat()) == look
    except OSError:
        return False
    _, modified, changed, _ = look
    return unchanged and time.time_ns() - max(modified, changed) > SETTLED_SECONDS * 1e9


def _load(remembered: Path | None) -> dict[str, tuple[_Look, str]]:
    if remembered is None:
        return {}
    try:
        tree = json.loads(remembered.read_bytes())
        return {key: (look, digest) for key, (look, digest) in tree.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # none yet, or damaged: everything is read
