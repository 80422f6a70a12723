"""Which stages may change their number of threads on the way (docs/adr/0027)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from clipgan.config import Threads

FOLLOWING = frozenset({"features", "evaluate"})
"""No exact resume hangs on the order of their sums."""
KEEPING = frozenset({"pretrain_clip", "pretrain_mapper"})


def set_stage_threads(name: str, threads: Threads) -> AbstractContextManager[None]:
    """For the stages that compute and do not choose by themselves, as trainings do."""
    if name not in FOLLOWING | KEEPING:
        return nullcontext()
    from clipgan.threads import follow_load, keep_threads

    return (follow_load if name in FOLLOWING else keep_threads)(threads)
