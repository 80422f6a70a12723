"""CLIP's intermediates, generator, discriminator and head give the official networks' numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clipgan.losses.adversarial import mismatch_texts
from tests.numerics.galip_reference import (
    apply_rule,
    arrays,
    assert_matches,
    build_discriminator,
    build_generator,
    facts,
    latents,
    official_weights,
    real_images,
    sentences,
    statistics,
    tower,
)
from tests.numerics.lafite_reference import DRAW_TOLERANCE

INPUTS = ("official", "correct")


@pytest.fixture(scope="module", params=INPUTS)
def clip_input(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_rule_rebuilds_weights_and_inputs() -> None:
    rebuilt = {
        f"{network}:{name}": tensor
        for network in ("netG", "netD", "netC")
        for name, tensor in official_weights(network).items()
    }
    visual = tower().visual.state_dict()
    rebuilt |= {f"clip:visual.{name}": tensor for name, tensor in visual.items()}
    rebuilt |= {f"in.real{side}": real_images(side) for side in (224, 256)}
    checked = 0
    for name, wanted in facts()["checks"].items():
        if name not in rebuilt:
            continue  # the text tower: see the test below
        found = rebuilt[name].double()
        assert found.norm().item() == pytest.approx(wanted["norm"], rel=DRAW_TOLERANCE), name
        bound = DRAW_TOLERANCE * float(found.abs().max())
        assert found.flatten()[:3].tolist() == pytest.approx(wanted["first"], abs=bound), name
        checked += 1
    assert checked == 21
    assert_matches(latents(), "in.noise", DRAW_TOLERANCE)
    assert_matches(sentences(), "in.sent", DRAW_TOLERANCE)
    assert_matches(real_images(256)[:, :, ::32, ::32], "in.real256_slice", DRAW_TOLERANCE)
    assert_matches(real_images(224)[:, :, ::32, ::32], "in.real224_slice", DRAW_TOLERANCE)


@pytest.mark.parametrize("side", [224, 256])
def test_clip_input_taps_embedding_and_discriminator(side: int, clip_input: Any) -> None:
    tag = f"real{side}.{clip_input}"
    pixels = tower().prepare(real_images(side), clip_input)
    assert_matches(pixels[:, :, ::16, ::16], f"{tag}.clip_input_slice")
    assert_matches(statistics(pixels, 2), f"{tag}.clip_input_stats")
    discriminator = build_discriminator(clip_input)
    with torch.no_grad():
        found = tower().encode(pixels, discriminator.tapped_blocks)
        early = tower().encode_intermediates(pixels, discriminator.tapped_blocks)
        features = discriminator(found.intermediates)
        texts = discriminator.scale_texts(sentences())
        matched = discriminator.compute_logits(features, texts)
        mismatched = discriminator.compute_logits(features, mismatch_texts(texts))
    assert torch.equal(early, found.intermediates)
    assert_matches(found.intermediates[:, :, ::32], f"{tag}.feats_slice")
    assert_matches(statistics(found.intermediates, 2), f"{tag}.feats_stats")
    assert_matches(found.embeddings, f"{tag}.emb")
    assert_matches(features[:, ::16], f"{tag}.D_slice")
    assert_matches(statistics(features), f"{tag}.D_stats")
    assert_matches(matched[:, None, None, None], f"{tag}.C_match")
    assert_matches(mismatched[:, None, None, None], f"{tag}.C_mismatch")


def test_the_two_inputs_are_different() -> None:
    official = arrays()["real224.official.emb"]
    assert (official - arrays()["real224.correct.emb"]).norm() > 0.1 * official.norm()


def test_generator_and_every_stage_of_it() -> None:
    generator = build_generator()
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, output: kept.update({name: output.detach()})

    stages = {
        "fc_code": generator.latent_projection,
        "fc_prompt": generator.prompt_predictor,
        "FBlock3": generator.bridge_blocks[3],
        "conv_fuse": generator.bridge_projection,
        "mapping": generator.merge,
        "GBlock0": generator.blocks[0],
        "GBlock4": generator.blocks[4],
        "GBlock5": generator.blocks[5],
    }
    for name, module in stages.items():
        assert module is not None
        module.register_forward_hook(keep(name))
    with torch.no_grad():
        images = generator(latents(), sentences())
        bridge, prompts = kept["conv_fuse"], kept["fc_prompt"].view(4, 8, 768)
        kept["CLIP_ViT"] = tower().run_prompted(bridge, prompts, 1)
    slices = {
        "fc_code": (slice(None), slice(None, None, 49)),
        "fc_prompt": (slice(None), slice(None, None, 96)),
        "FBlock3": (slice(None), slice(None, None, 8)),
        "conv_fuse": (slice(None), slice(None, None, 64)),
        "CLIP_ViT": (slice(None), slice(None, None, 64)),
        "mapping": (slice(None), slice(None, None, 16)),
        "GBlock0": (slice(None), slice(None, None, 16)),
        "GBlock4": (slice(None), slice(None, None, 8), *[slice(None, None, 16)] * 2),
        "GBlock5": (slice(None), slice(None, None, 4), *[slice(None, None, 28)] * 2),
    }
    for name, part in slices.items():
        assert_matches(kept[name][part], f"G.mid.{name}")
        assert_matches(statistics(kept[name]), f"G.mid.{name}_stats")
    assert_matches(images[:, :, ::8, ::8], "G.img_slice")
    assert_matches(images[0, :, 96:128, 96:128], "G.img0_crop")
    assert_matches(statistics(images, 2), "G.img_stats")


@pytest.mark.slow
def test_sentence_features_are_open_clips_text_features() -> None:
    import open_clip

    clip = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    with torch.no_grad():
        for name, tensor in clip.state_dict().items():
            if not name.startswith("visual.") and tensor.dtype == torch.float32:
                norm = ".ln_" in f".{name}" and name.endswith(".weight")
                tensor.copy_(apply_rule(name, tuple(tensor.shape), norm=norm))
        found = clip.encode_text(arrays()["text.tokens"].long())
    assert_matches(found, "text.sent")
