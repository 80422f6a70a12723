"""Which split a concept belongs to: a pure function of its name, the seed and the fraction."""

from __future__ import annotations

import hashlib

from clipgan.schemas import TRAIN, VALIDATION

_HASH_RANGE = 2**64


def compute_split(concept: str, *, validation_fraction: float, seed: int) -> str:
    """``train`` or ``validation``.

    The concept's seeded hash is a uniform number in [0, 1); below ``validation_fraction`` it is
    held out. So the split does not depend on the order, on other concepts or on the styles in use,
    and a larger fraction keeps what a smaller one held out.
    """
    digest = hashlib.sha256(f"{seed}\0{concept}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / _HASH_RANGE
    return VALIDATION if position < validation_fraction else TRAIN
