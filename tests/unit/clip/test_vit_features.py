"""The frozen tower: intermediates, prompts, input forms, precision, and what it refuses."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from clipgan.errors import ClipError
from clipgan.families.galip.networks.vit_features import VitTower, build_vit_tower
from clipgan.images import CLIP_MEAN, CLIP_STD
from tests.galip_parts import DEPTH, EMBED_DIM, GRID, SIDE_PX, WIDTH, build_tower


def draw_pixels(count: int = 2) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, SIDE_PX, SIDE_PX, generator=draws)


def record_tokens(tower: VitTower, pixels: Tensor) -> list[Tensor]:
    """Patch tokens after every block, by hooks on an ordinary pass."""
    found: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, given, output: found.append(output[:, 1:]))
        for block in tower.visual.transformer.resblocks
    ]
    tower.visual(pixels)
    for hook in hooks:
        hook.remove()
    return [tokens.transpose(1, 2).reshape(len(pixels), WIDTH, GRID, GRID) for tokens in found]


def test_sizes_are_read_from_the_tower() -> None:
    tower = build_tower()
    assert (tower.grid_side, tower.width, tower.depth) == (GRID, WIDTH, DEPTH)
    assert (tower.side_px, tower.embed_dim) == (SIDE_PX, EMBED_DIM)


@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_taps_and_embedding_are_those_of_an_ordinary_pass(pool_type: str) -> None:
    tower, pixels = build_tower(pool_type=pool_type), draw_pixels()
    tokens = record_tokens(tower, pixels)
    found = tower.encode(pixels, (0, 3))
    assert torch.allclose(found.intermediates, torch.stack([tokens[0], tokens[3]], 1), atol=1e-6)
    assert torch.allclose(found.embeddings, tower.visual(pixels), atol=1e-6)
    early = tower.encode_intermediates(pixels, (0, 2))
    assert torch.allclose(early, torch.stack([tokens[0], tokens[2]], 1), atol=1e-6)


def test_blocks_after_the_last_tap_are_not_run() -> None:
    tower = build_tower()
    tower.visual.transformer.resblocks[3].register_forward_hook(lambda *_: pytest.fail("run"))
    assert tower.encode_intermediates(draw_pixels(), (1, 2)).shape == (2, 2, WIDTH, GRID, GRID)


def test_patch_embeddings_without_prompts_go_through_as_an_image_does() -> None:
    tower, pixels = build_tower(), draw_pixels()
    found = tower.run_prompted(tower.visual.conv1(pixels), torch.zeros(2, 0, WIDTH), 0)
    assert torch.allclose(found, record_tokens(tower, pixels)[-1], atol=1e-6)


def test_each_prompt_stands_last_in_its_own_block_only() -> None:
    tower = build_tower()
    bridge, prompts = torch.randn(2, WIDTH, GRID, GRID), torch.randn(2, 2, WIDTH)
    seen: list[Tensor] = []
    for block in tower.visual.transformer.resblocks:
        block.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    tower.run_prompted(bridge, prompts, 1)
    tokens = GRID * GRID + 1
    assert [given.shape[1] for given in seen] == [tokens, tokens + 1, tokens + 1, tokens]
    assert torch.equal(seen[1][:, -1], prompts[:, 0])
    assert torch.equal(seen[2][:, -1], prompts[:, 1])


def test_gradients_reach_the_inputs_and_no_weight() -> None:
    tower = build_tower()
    pixels = draw_pixels().requires_grad_()
    bridge = torch.randn(2, WIDTH, GRID, GRID, requires_grad=True)
    prompts = torch.randn(2, 2, WIDTH, requires_grad=True)
    found = tower.encode(pixels, (0, 1))
    total = found.intermediates.sum() + found.embeddings.sum()
    (total + tower.run_prompted(bridge, prompts, 1).square().sum()).backward()
    for given in (pixels, bridge, prompts):
        assert given.grad is not None
        assert bool(given.grad.flatten(1).any(1).all())
    assert all(parameter.grad is None for parameter in tower.visual.parameters())


def test_official_input_is_converted_twice_and_ours_once() -> None:
    tower = build_tower()
    black, white = torch.full((1, 3, 48, 48), -1.0), torch.full((1, 3, 48, 48), 1.0)
    mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)

    def unit(images: Tensor, kind: Any) -> Tensor:
        return tower.prepare(images, kind)[0, :, 5, 7] * std + mean

    assert torch.allclose(unit(black, "correct"), torch.zeros(3), atol=1e-5)
    assert torch.allclose(unit(white, "correct"), torch.ones(3), atol=1e-5)
    assert torch.allclose(unit(black, "official"), torch.full((3,), 0.5), atol=1e-5)
    assert torch.allclose(unit(white, "official"), torch.ones(3), atol=1e-5)


def test_a_half_precision_tower_takes_and_gives_float32_whatever_autocast_says() -> None:
    tower = build_tower()
    tower.visual.to(torch.bfloat16)
    dtypes = set()
    tower.visual.transformer.resblocks[0].register_forward_hook(
        lambda module, given, output: dtypes.add(output.dtype)
    )
    with torch.autocast("cpu", torch.float16):
        found = tower.encode(draw_pixels(), (0,))
        seen = tower.run_prompted(torch.randn(1, WIDTH, GRID, GRID), torch.zeros(1, 1, WIDTH), 0)
    assert {found.intermediates.dtype, found.embeddings.dtype, seen.dtype} == {torch.float32}
    assert dtypes == {torch.bfloat16}


def test_copies_share_the_tower_and_networks_do_not_own_it() -> None:
    network = nn.Linear(2, 2)
    network.tower = build_tower()  # type: ignore[assignment]
    assert copy.deepcopy(network).tower is network.tower
    assert set(network.state_dict()) == {"weight", "bias"}


def encoder_with(visual: Any, model: str) -> Any:
    return SimpleNamespace(
        clip=SimpleNamespace(visual=visual),
        side_px=32,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        fingerprint={"model": model},
    )


def test_a_tower_that_is_no_vit_is_refused_with_alternatives() -> None:
    resnet = ModifiedResNet(layers=[1, 1, 1, 1], output_dim=8, heads=2, image_size=32, width=8)
    with pytest.raises(ClipError) as refusal:
        build_vit_tower(encoder_with(resnet, "RN50"))
    message = str(refusal.value)
    assert "RN50" in message
    assert "ViT-B-32" in message
    assert "clipgan-vit-h32-96" in message
    assert "\n" not in message


def test_an_encoder_lends_its_tower() -> None:
    visual = build_tower().visual
    tower = build_vit_tower(encoder_with(visual, "tiny"))
    assert tower.visual is visual
    assert tower.model == "tiny"


def test_patches_that_form_no_square_are_refused() -> None:
    visual = build_tower().visual
    visual.grid_size = (4, 2)
    with pytest.raises(ClipError, match="4 x 2 patches"):
        build_vit_tower(encoder_with(visual, "wide"))
