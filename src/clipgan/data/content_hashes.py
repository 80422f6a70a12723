"""SHA-256 of files, remembered: a file with unchanged status is not read again.

The status is path, size, times of change and inode. It is kept with the hash in a file outside of
all artifacts, so that artifacts depend on contents alone; that file may be deleted at any time.
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
"""A file that changed less than this time before it was read is not remembered: it may change again
within one tick of the file system's clock and keep its status. FAT's clock has the longest tick."""

SHOWN_FROM = 1000
"""With fewer files there is no progress bar."""

_Status = list[int]


def hash_files(
    files: Sequence[tuple[Path, os.stat_result]], remembered: Path | None
) -> list[str | None]:
    """The hash of each file, in their order; None where one cannot be read.

    Args:
        files: with their status as of now.
        remembered: file of statuses and hashes, made or replaced; None: everything is read.
    """
    known = _load(remembered)
    statuses = [_describe(status) for _, status in files]
    keys = [os.fspath(path.absolute()) for path, _ in files]
    hashed: dict[str, tuple[_Status, str]] = {}
    unread = []
    for key, status in zip(keys, statuses, strict=True):
        if key in known and known[key][0] == status:
            hashed[key] = known[key]
        else:
            unread.append((key, status))
    lasting = dict(hashed)
    try:
        shown = len(unread) >= SHOWN_FROM
        with progress_bar("look", len(unread), "new files", shown=shown) as bar:
            for key, status in unread:
                bar.advance()
                digest = _read_hash(Path(key))
                if digest is not None:
                    hashed[key] = status, digest
                    if _is_settled(Path(key), status):
                        lasting[key] = hashed[key]
    finally:
        # Also after an interruption: files that were read need not be read again.
        if remembered is not None and lasting != known:
            write_bytes(remembered, json.dumps(lasting).encode())
    return [hashed[key][1] if key in hashed else None for key in keys]


def _read_hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None  # the ingest report names it


def _describe(status: os.stat_result) -> _Status:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_settled(path: Path, status: _Status) -> bool:
    try:
        unchanged = _describe(path.stat()) == status
    except OSError:
        return False
    _, modified, changed, _ = status
    return unchanged and time.time_ns() - max(modified, changed) > SETTLED_SECONDS * 1e9


def _load(remembered: Path | None) -> dict[str, tuple[_Status, str]]:
    if remembered is None:
        return {}
    try:
        tree = json.loads(remembered.read_bytes())
        return {key: (status, digest) for key, (status, digest) in tree.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # none yet, or damaged: everything is read
