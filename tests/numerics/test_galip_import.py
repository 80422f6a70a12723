"""A file of the official layout and size gives the official networks' output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.families.galip.importer.weights import build_official_galip, read_galip_file
from tests.numerics.galip_reference import (
    assert_matches,
    latents,
    official_weights,
    real_images,
    sentences,
    statistics,
    tower,
    tower_weights,
)


def with_prefix(state: dict[str, Any]) -> dict[str, Any]:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.slow
def test_official_file_reproduces_the_official_output(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in tower_weights().items()}
    model = {
        "netG": with_prefix(official_weights("netG") | half),
        "netD": with_prefix(official_weights("netD")),
        "netC": with_prefix(official_weights("netC")),
    }
    path = tmp_path / "state_epoch_1480.pth"
    torch.save({"model": model, "optimizers": {}, "epoch": 1480}, path)
    found = build_official_galip(read_galip_file(path), tower())
    with torch.no_grad():
        images = found.generator(latents(), sentences())
        assert found.discriminator is not None
        pixels = tower().prepare(real_images(256), found.discriminator.clip_input)
        intermediates = tower().encode_intermediates(pixels, found.discriminator.tapped_blocks)
        texts = found.discriminator.scale_texts(sentences())
        logits = found.discriminator.compute_logits(found.discriminator(intermediates), texts)
    assert_matches(images[:, :, ::8, ::8], "G.img_slice")
    assert_matches(statistics(images, 2), "G.img_stats")
    assert_matches(logits[:, None, None, None], "real256.official.C_match")
    assert found.generator.architecture["text_norm"] == "raw"
