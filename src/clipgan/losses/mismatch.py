"""Real images with the texts of others: what a discriminator that reads must refuse."""

from __future__ import annotations

import torch
from torch import Tensor

from clipgan.errors import ConfigError


def mismatch_texts(texts: Tensor) -> Tensor:
    """Give row i the text of row i + 1, and the last one the first's; detached.

    Raises:
        ConfigError: a batch of one has no other text.
    """
    if len(texts) < 2:
        raise ConfigError(
            f"train.batch_size = {len(texts)}: a mismatched text is another image's; use at least 2"
        )
    return torch.roll(texts, -1, dims=0).detach()
