"""Which stages may change their number of threads on the way (docs/adr/0027)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from clipgan.config import Threads

FOLLOWING = frozenset({"features", "evaluate"})
"""Stages that may change their number of threads: no exact resume depends on their sums."""
KEEPING = frozenset({"pretrain_clip", "pretrain_mapper"})


def set_stage_threads(name: str, threads: Threads) -> AbstractContextManager[None]:
    """Set the threads of stages that compute; trainings set their own."""
    if name not in FOLLOWING | KEEPING:
        return nullcontext()
    from clipgan.threads import follow_load, keep_threads

    return (follow_load if name in FOLLOWING else keep_threads)(threads)
