"""The official forms of LAFITE's logit, text path and CLIP view give the official numbers.

Where the released code differs from the equations, its form is an option: ``batch_sum``,
``normalize_semantic``, ``text_concat_max_px``, ``pad_white`` and no antialias; ``sharpened`` is
in ``test_lafite_losses.py``.
"""

from __future__ import annotations

import pytest
import torch

from clipgan.families.lafite.training.clip_view import draw_clip_views
from clipgan.images import to_clip_input
from tests.numerics.lafite_cases import (
    OFFICIAL,
    synthesise,
)
from tests.numerics.lafite_reference import (
    TAGS,
    ScriptedRandom,
    arrays,
    assert_matches,
    build_discriminator,
    build_generator,
    draw,
    draw_images,
    facts,
    inputs,
    list_names,
    official_view,
    unit,
)


@torch.no_grad()
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("kind", ["real", "fake"])
def test_logits(tag: str, kind: str) -> None:
    discriminator, texts = OFFICIAL.build_discriminator(tag), inputs(tag)["text_features"]
    output = discriminator(inputs(tag)["images"] if kind == "real" else arrays()[f"{tag}.img"])
    logits = discriminator.compute_logits(output, texts)
    assert_matches(logits[:, None], f"{tag}.D.{kind}.logits_official")
    if kind == "real":
        normalized = build_discriminator(tag, semantic_logit="batch_sum", normalize_semantic=True)
        logits = normalized.compute_logits(output, texts)
        assert_matches(logits[:, None], f"{tag}.D.real.logits_official_usenorm")


@torch.no_grad()
@pytest.mark.parametrize("tag", TAGS)
def test_logits_of_a_batch_of_eight(tag: str) -> None:
    discriminator, given = OFFICIAL.build_discriminator(tag), inputs(tag)
    side, dim = discriminator.resolution_px, given["text_features"].shape[1]
    images = torch.cat([given["images"], draw_images(f"{tag}/real_b", 4, side, 8)])
    texts = torch.cat([given["text_features"], unit(draw(f"{tag}/txt_b", (4, dim)))])
    logits = discriminator.compute_logits(discriminator(images), texts)
    assert_matches(logits[:, None], f"{tag}.D.batch8.logits_official")


@torch.no_grad()
def test_text_by_scale_and_shift() -> None:
    """The second structure, in the block of 32 px."""
    generator = build_generator("r32", change=16)
    shapes = facts()["state_dict_shapes"]["r32_change16"]["G"]
    official = {name for name in shapes if not name.endswith("resample_filter")}
    names = list_names("r32", "G", 16)
    assert {name.official for name in names} == official
    assert {name.ours for name in names} == set(generator.state_dict())
    images = synthesise(generator, "r32", inputs("r32")["text_features"])
    assert_matches(images[:, :, ::2, ::2], "r32.change16.img")


def test_clip_input_of_a_crop() -> None:
    """256 px images cropped to 180 px at row 44, column 31, as CLIP gets them."""
    images = draw_images("lafite/img256", 2, 256, 16)
    (view,) = draw_clip_views(images, official_view(), 224, ScriptedRandom(180, 44, 31))
    pixels = to_clip_input(view, 224)
    assert_matches(pixels[:, :, ::16, ::16], "preproc256.slice")
    rows = pixels.flatten(2)
    found = torch.stack([rows.mean(2), rows.std(2, unbiased=False), rows.norm(dim=2)], 2)
    assert_matches(found, "preproc256.stats")
    (ours,) = draw_clip_views(
        images,
        official_view().model_copy(update={"antialias": True}),
        224,
        ScriptedRandom(180, 44, 31),
    )
    difference = to_clip_input(ours, 224)[:, :, ::16, ::16] - arrays()["preproc256.slice"]
    assert difference.abs().max() > 0.05, "the default's kernel is another one"
