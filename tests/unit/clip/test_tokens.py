"""Captions to tokens: batches of like length, padding cut where the model masks it."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer

from clipgan.clip.builtin import find_sentence_encoder, read_trunk
from clipgan.clip.tokens import tokenize_by_length

CAPTIONS = ["dog", "a red apple on a wooden table beside the window", "rocket", "ice cream cone"]


def test_every_caption_comes_once() -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    found: dict[int, torch.Tensor] = {}
    for places, tokens in tokenize_by_length(tokenizer, CAPTIONS, batch_size=3):
        assert tokens.shape == (len(places), 77)
        found |= dict(zip(places, tokens, strict=True))
    wanted = tokenizer(CAPTIONS)
    assert sorted(found) == [0, 1, 2, 3]
    assert all(torch.equal(found[place], wanted[place]) for place in found)


def test_cut_padding_changes_no_sentence_embedding() -> None:
    encoder = find_sentence_encoder()
    tokenizer: Any = HFTokenizer(str(encoder), context_length=64)
    tower = build_sentence_tower()
    with torch.no_grad():
        wanted = tower(tokenizer(CAPTIONS))
        for places, tokens in tokenize_by_length(tokenizer, CAPTIONS, batch_size=2):
            assert tokens.shape[1] < 20
            torch.testing.assert_close(tower(tokens), wanted[places], atol=1e-5, rtol=0)


def build_sentence_tower() -> Any:
    """MiniLM as open_clip holds it, without a projection."""
    from open_clip.hf_model import HFTextEncoder

    encoder = find_sentence_encoder()
    tower = HFTextEncoder(str(encoder), 384, pooler_type="mean_pooler", pretrained=False)
    tower.transformer.load_state_dict(read_trunk(encoder))
    return tower.eval()
