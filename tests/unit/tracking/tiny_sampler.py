"""A sampler with a text encoder that needs no weights, named as loader in the models of tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from clipgan.generation.sampler import Sampler
from clipgan.models.bundle import load_bundle

LOADER = "tests.unit.tracking.tiny_sampler:load_tiny_sampler"
TEXT_DIM = 8


class TinyTextEncoder(nn.Module):
    """Unit vectors drawn from the text's checksum."""

    def encode_texts(self, captions: Sequence[str]) -> Tensor:
        """(N, 8) float32."""
        rows = [
            torch.randn(TEXT_DIM, generator=torch.Generator().manual_seed(crc32(text.encode())))
            for text in captions
        ]
        return nn.functional.normalize(torch.stack(rows), dim=1)


def load_tiny_sampler(
    folder: Path | None,
    *,
    device: torch.device,
    clip_weights: Path | None = None,
    precision: str = "fp32",
) -> Sampler:
    """The signature of the real loader."""
    assert folder is not None
    encoder: Any = TinyTextEncoder()
    bundle = load_bundle(folder, with_discriminator=False)
    return Sampler(bundle, encoder, device, precision=precision)
