"""Explains why a training starts at image 0 although an earlier one left checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipgan.artifacts import write_json
from clipgan.resume_state import list_states

IDENTITY_FILE = "identity.json"
MAX_DIFFERENCES = 3


def announce_start(run_folder: Path, identity: Mapping[str, Any]) -> None:
    """Print a line where this training starts at image 0 although another one left checkpoints.

    ``identity``, JSON values by name, is kept in ``run_folder`` for the comparison with the next
    training.
    """
    write_json(run_folder / IDENTITY_FILE, dict(identity))
    states = list_states(run_folder.parent)
    earlier = [folder for folder in states if any(folder.glob("checkpoints/checkpoint-*"))]
    if run_folder in earlier or not earlier:
        return
    newest = max(earlier, key=lambda folder: folder.stat().st_mtime)
    print(
        f"{_describe_difference(newest, identity)}: starting at image 0 (the training of "
        f"before stays in {newest}; `clipgan clean` removes it)",
        flush=True,
    )


def _describe_difference(folder: Path, identity: Mapping[str, Any]) -> str:
    path = folder / IDENTITY_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    changed = [
        f"{name} {before[name]} -> {now}"
        for name, now in identity.items()
        if name in before and before[name] != now
    ]
    if not changed:
        return "code, features or initial weights changed"
    more = len(changed) - MAX_DIFFERENCES
    words = ", ".join(changed[:MAX_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
    return f"parameters changed ({words})"


def flatten(prefix: str, tree: dict[str, object]) -> dict[str, object]:
    """``("train", {"ema": {"a": 1}})`` -> ``{"train.ema.a": 1}``."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}"
        flat.update(flatten(name, value) if isinstance(value, dict) else {name: value})
    return flat
