"""Captions through the frozen sentence encoder, pooled as open_clip's text tower pools them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from clipgan.clip.builtin import BUILTIN_MODEL, build_builtin_clip, read_trunk
from clipgan.clip.tokens import tokenize_by_length
from clipgan.progress import progress_bar

BATCH_SIZE = 128


def embed_captions(captions: list[str], model_cfg: dict[str, Any], encoder: Path) -> Tensor:
    """Mean of the last layer's token vectors: (N, E) float32, not normalised.

    Args:
        model_cfg: open_clip configuration of the CLIP in training.
        encoder: folder of the sentence encoder, see ``find_sentence_encoder``.
    """
    model: Any = build_builtin_clip(model_cfg, encoder)
    tower = model.text.eval()
    tower.transformer.load_state_dict(read_trunk(encoder))
    tower.proj = torch.nn.Identity()
    tokenizer = open_clip.get_tokenizer(BUILTIN_MODEL)
    pooled = torch.empty(len(captions), tower.config.hidden_size)
    with progress_bar("captions", len(captions), "captions") as bar, torch.inference_mode():
        for places, tokens in tokenize_by_length(tokenizer, captions, BATCH_SIZE):
            pooled[places] = tower(tokens)
            bar.advance(len(places))
    return pooled
