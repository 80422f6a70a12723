"""Tokens of captions, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from open_clip.tokenizer import HFTokenizer
from torch import Tensor


def tokenize_by_length(
    tokenizer: Any, captions: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Make batches of captions of similar length: (places in ``captions``, tokens (B, T) int64).

    A Hugging Face tokenizer pads every caption to the model's full context. Its models mask the
    padding, so columns of padding alone are cut off. open_clip's own models need the full context.
    """
    order = sorted(range(len(captions)), key=lambda place: len(captions[place]))
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        tokens: Tensor = tokenizer([captions[place] for place in places])
        if isinstance(tokenizer, HFTokenizer):
            used = (tokens != tokenizer.tokenizer.pad_token_id).any(dim=0)
            tokens = tokens[:, : int(torch.nonzero(used).max()) + 1]
        yield places, tokens
