"""GALIP's networks: sizes from any grid, real initialisation, gates, and what they refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from clipgan.errors import ConfigError
from clipgan.families.galip.networks.discriminator import ConditionalHead, GalipDiscriminator
from clipgan.families.galip.networks.generator import (
    GalipGenerator,
    GeneratorBlock,
    compute_block_sides,
    compute_galip_channels,
)
from tests.galip_parts import DEPTH, EMBED_DIM, GRID, WIDTH, build_tower, galip_config


def build_generator(**changes: Any) -> GalipGenerator:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        **galip_config().generator.model_dump(),
        "resolution_px": 16,
        "text_dim": EMBED_DIM,
        "text_gain": 2.0,
        "text_norm": "unit",
        "vit_width": WIDTH,
        "vit_grid_side": GRID,
    }
    return GalipGenerator(**{**arguments, **changes})


def build_discriminator(**changes: Any) -> GalipDiscriminator:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        **galip_config().discriminator.model_dump(),
        "text_dim": EMBED_DIM,
        "text_gain": 2.0,
        "clip_input": "correct",
        "vit_width": WIDTH,
        "vit_grid_side": GRID,
    }
    return GalipDiscriminator(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("grid", "resolution", "sides"),
    [
        (7, 224, [8, 16, 32, 64, 128, 224]),  # the paper's code
        (7, 256, [8, 16, 32, 64, 128, 256]),
        (7, 512, [8, 16, 32, 64, 128, 256, 512]),
        (3, 64, [4, 8, 16, 32, 64]),  # the built-in CLIP
        (14, 224, [16, 32, 64, 128, 224]),
        (16, 64, [16, 32, 64]),
        (16, 96, [16, 32, 64, 96]),
        (4, 4, [4]),
    ],
)
def test_sides_grow_from_the_grid_to_the_resolution(
    grid: int, resolution: int, sides: list[int]
) -> None:
    assert compute_block_sides(grid, resolution) == sides


def test_channels_taper_over_the_last_blocks() -> None:
    assert compute_galip_channels(6, 16) == [128, 128, 128, 128, 64, 32, 16]
    assert compute_galip_channels(3, 10) == [80, 40, 20, 10]


def test_images_below_the_first_block_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"resolution_px = 8 .* at least 16"):
        compute_block_sides(14, 8)


@pytest.mark.parametrize("resolution", [16, 24, 32])
def test_output_has_the_configured_side(resolution: int) -> None:
    generator = build_generator(resolution_px=resolution).attach_tower(build_tower())
    images = generator(torch.randn(2, 8), torch.randn(2, EMBED_DIM))
    assert images.shape == (2, 3, resolution, resolution)
    assert images.dtype == torch.float32


@pytest.mark.parametrize(("out_channels", "side_px"), [(4, 16), (4, 14), (6, 8), (6, 16)])
def test_a_block_may_resize_after_what_sees_single_pixels(out_channels: int, side_px: int) -> None:
    """Output and gradients beside the paper's order, which resizes first."""
    torch.manual_seed(0)
    block = GeneratorBlock(6, out_channels, side_px, 5).double()
    for weight in block.parameters():
        torch.nn.init.normal_(weight)
    features, condition = torch.randn(2, 6, 8, 8).double(), torch.randn(2, 5).double()

    def resize_first(features: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        larger = torch.nn.functional.interpolate(features, size=(side_px, side_px), mode="nearest")
        hidden = block.conv_in(block.fuse_in(larger, condition))
        drawn: torch.Tensor = block.conv_out(block.fuse_out(hidden, condition))
        return drawn + block.shortcut(larger)

    found = []
    for forward in (block, resize_first):
        inputs = [features.clone().requires_grad_(), condition.clone().requires_grad_()]
        drawn = forward(*inputs)
        of = [*inputs, *block.parameters()]
        found.append([drawn.detach(), *torch.autograd.grad(drawn.square().sum(), of)])
    for ours, papers in zip(*found, strict=True):
        # Sums in another order, in double precision.
        assert (ours - papers).abs().max() <= 1e-12 * papers.abs().max()


def test_affines_start_as_the_identity_and_text_enters_by_prompts() -> None:
    generator = build_generator().attach_tower(build_tower())
    features, condition = torch.randn(2, 4, 3, 3), torch.randn(2, 8 + EMBED_DIM)
    first = generator.bridge_blocks[0].fuse_out.first
    assert torch.equal(first(features, condition), features)
    latents = torch.randn(1, 8).repeat(2, 1)
    one, other = generator(latents, torch.randn(2, EMBED_DIM))
    assert not torch.equal(one, other)


def test_every_weight_has_a_gradient_once_the_affines_have_moved() -> None:
    generator = build_generator().attach_tower(build_tower())
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    generator(torch.randn(3, 8), torch.randn(3, EMBED_DIM)).square().sum().backward()
    still = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_the_transformer_and_its_prompts_can_be_left_out() -> None:
    generator = build_generator(vit_weight=0.0, prompt_tokens=0)
    assert generator(torch.randn(1, 8), torch.randn(1, EMBED_DIM)).shape == (1, 3, 16, 16)
    assert generator.prompt_predictor is None
    no_prompts = build_generator(prompt_tokens=0).attach_tower(build_tower())
    assert no_prompts(torch.randn(1, 8), torch.randn(1, EMBED_DIM)).shape == (1, 3, 16, 16)


def test_bridge_and_transformer_are_weighted() -> None:
    tower = build_tower()
    latents, texts = torch.randn(2, 8), torch.randn(2, EMBED_DIM)
    kept: list[torch.Tensor] = []
    for weights in ((1.0, 0.0), (0.0, 1.0), (3.0, 0.5)):
        generator = build_generator(
            bridge_weight=weights[0], vit_weight=weights[1] or 0.0, prompt_tokens=0
        ).attach_tower(tower)
        generator.merge.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
        generator(latents, texts)
    assert torch.allclose(kept[2], 3.0 * kept[0] + 0.5 * kept[1], atol=1e-5)


def test_text_gain_is_a_factor_on_the_text() -> None:
    tower = build_tower()
    latents, texts = torch.randn(2, 8), torch.randn(2, EMBED_DIM)
    loud = build_generator(text_gain=4.0).attach_tower(tower)
    plain = build_generator(text_gain=1.0).attach_tower(tower)
    assert torch.equal(loud(latents, texts), plain(latents, texts * 4.0))
    assert torch.equal(build_discriminator(text_gain=4.0).scale_texts(texts), texts * 4.0)


def test_the_tower_is_in_no_state_and_copies_share_it() -> None:
    tower = build_tower()
    generator = build_generator().attach_tower(tower)
    assert generator.state_dict().keys() == build_generator().state_dict().keys()
    assert copy.deepcopy(generator).tower is tower
    rebuilt = GalipGenerator(**generator.architecture)
    rebuilt.load_state_dict(generator.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vit_width": WIDTH + 1}, "has width 16, the generator was made for 17"),
        ({"vit_grid_side": GRID - 1}, "has grid side 4, the generator was made for 3"),
        ({"prompt_tokens": DEPTH}, r"need 5 blocks, and tiny-vit has 4: use at most 3"),
    ],
)
def test_a_tower_of_another_size_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_generator(**changes).attach_tower(build_tower())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bridge_weight": 0.0, "vit_weight": 0.0}, "leave nothing to draw"),
        ({"vit_weight": 0.0}, "nothing to prompt"),
    ],
)
def test_weights_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_generator(**changes)


def test_text_of_another_width_is_refused() -> None:
    generator = build_generator().attach_tower(build_tower())
    with pytest.raises(ConfigError, match="7 wide, the generator was made for 12"):
        generator(torch.randn(1, 8), torch.randn(1, 7))
    with pytest.raises(ConfigError, match="7 wide, the discriminator was made for 12"):
        build_discriminator().scale_texts(torch.randn(1, 7))


def test_a_generator_without_a_tower_says_so() -> None:
    with pytest.raises(ConfigError, match="attach_tower"):
        build_generator()(torch.randn(1, 8), torch.randn(1, EMBED_DIM))


def test_discriminator_starts_as_its_first_tap_and_every_weight_can_learn() -> None:
    discriminator = build_discriminator(channels=WIDTH)
    intermediates = torch.randn(2, 3, WIDTH, GRID, GRID)
    assert torch.equal(discriminator(intermediates), intermediates[:, 0])
    discriminator = build_discriminator()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    texts = discriminator.scale_texts(torch.randn(2, EMBED_DIM))
    discriminator.compute_logits(discriminator(intermediates), texts).sum().backward()
    still = [n for n, p in discriminator.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_logits_of_a_sample_do_not_depend_on_the_batch() -> None:
    discriminator = build_discriminator()
    intermediates, texts = torch.randn(3, 3, WIDTH, GRID, GRID), torch.randn(3, EMBED_DIM)
    together = discriminator.compute_logits(discriminator(intermediates), texts)
    alone = discriminator.compute_logits(discriminator(intermediates[:1]), texts[:1])
    assert together.shape == (3,)
    assert torch.allclose(together[:1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("grid", "kernels"), [(1, (1, 1)), (3, (2, 2)), (7, (4, 4)), (14, (4, 11)), (16, (4, 13))]
)
def test_head_uses_up_any_grid(grid: int, kernels: tuple[int, int]) -> None:
    head = ConditionalHead(5, 4, 3, grid)
    assert (head.conv_in.kernel_size[0], head.conv_out.kernel_size[0]) == kernels
    assert head(torch.randn(2, 5, grid, grid), torch.randn(2, 4)).shape == (2,)
