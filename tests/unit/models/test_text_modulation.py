"""How text enters a layer: each form's equation, and where it ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.errors import ConfigError
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.families.lafite.networks.text_modulation import (
    AffineConcatenation,
    LatentConcatenation,
    TextFreeModulation,
    TextScaleShift,
)

TEXT, CODE, STYLE, CHANNELS = 7, 6, 5, 4
FORMS: list[dict[str, Any]] = [
    {"style_input": "affine"},
    {"text_concat_max_px": 8},
    {"text_concat_max_px": 0},
    {"text_max_px": 8},
    {"text_max_px": 8, "text_concat_max_px": 4, "style_input": "affine"},
]


def build_generator(resolution_px: int = 16, text_dim: int = TEXT, **form: Any) -> LafiteGenerator:
    torch.manual_seed(0)
    return LafiteGenerator(
        resolution_px=resolution_px,
        text_dim=text_dim,
        latent_dim=5,
        style_dim=STYLE,
        text_hidden_dim=8,
        mapping_layers=2,
        channel_base=64,
        channel_max=8,
        **form,
    )


def draw_inputs(text_dim: int = TEXT) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(2)
    latents = torch.randn(4, 5, generator=draws)
    return latents, F.normalize(torch.randn(4, text_dim, generator=draws), dim=1)


def linear(layer: nn.Module, inputs: Tensor) -> Tensor:
    """An equalised layer by its definition: weights over sqrt(inputs)."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return inputs @ weight.t() / inputs.shape[1] ** 0.5 + bias


def perturb(module: nn.Module) -> None:
    """Biases that are neither all zero nor all one."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.data += torch.randn(parameter.shape)


class TestEquations:
    style = torch.randn(3, STYLE, generator=torch.Generator().manual_seed(0))
    text = torch.randn(3, TEXT, generator=torch.Generator().manual_seed(1))
    code = torch.randn(3, CODE, generator=torch.Generator().manual_seed(2))

    def test_concatenation_of_w(self) -> None:
        layer = LatentConcatenation(STYLE, CODE, CHANNELS)
        perturb(layer)
        wanted = linear(layer, torch.cat([self.code, self.style], 1))
        found = layer.modulate(self.style, self.text, iter([self.code]))
        assert torch.allclose(found, wanted, atol=1e-5)

    def test_concatenation_of_s(self) -> None:
        layer = AffineConcatenation(STYLE, CODE, CHANNELS)
        perturb(layer)
        style = linear(layer.style_affine, self.style)
        wanted = linear(layer.affine, torch.cat([self.code, style], 1))
        found = layer.modulate(self.style, self.text, iter([self.code]))
        assert torch.allclose(found, wanted, atol=1e-5)

    def test_scale_and_shift(self) -> None:
        layer = TextScaleShift(STYLE, TEXT, CODE, CHANNELS, learning_rate_multiplier=1.0)
        perturb(layer)

        def network(layers: nn.Sequential) -> Tensor:
            hidden = self.text
            for stage in layers[:2]:
                hidden = F.leaky_relu(linear(stage, hidden), 0.2) * 2**0.5
            return linear(layers[2], hidden)

        wanted = network(layer.scale) * linear(layer.style_affine, self.style)
        wanted = wanted + network(layer.shift)
        found = layer.modulate(self.style, self.text, iter(()))
        assert torch.allclose(found, wanted, atol=1e-4)

    def test_no_text(self) -> None:
        layer = TextFreeModulation(STYLE, CHANNELS)
        found = layer.modulate(self.style, self.text, iter(()))
        assert torch.allclose(found, linear(layer, self.style), atol=1e-5)


def test_the_learning_rate_multiplier_changes_no_number_at_the_start() -> None:
    slow, fast = (
        build_generator(text_concat_max_px=0, text_learning_rate_multiplier=rate)
        for rate in (0.01, 1.0)
    )
    with torch.no_grad():
        assert torch.allclose(slow(*draw_inputs()), fast(*draw_inputs()), atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_images_and_every_weight_a_gradient(form: dict[str, Any]) -> None:
    generator = build_generator(**form)
    latents, texts = draw_inputs()
    images = generator(latents, texts)
    assert images.shape == (4, 3, 16, 16)
    images.square().mean().backward()
    dead = [name for name, p in generator.named_parameters() if p.grad is None]
    assert not dead
    assert not torch.equal(generator(latents, -texts), images), "the text matters"


@pytest.mark.parametrize("form", [{}, *FORMS])
def test_a_form_is_part_of_the_architecture(form: dict[str, Any]) -> None:
    generator = build_generator(**form)
    again = LafiteGenerator(**generator.architecture)
    again.load_state_dict(generator.state_dict())
    with torch.no_grad():
        assert torch.equal(again(*draw_inputs()), generator(*draw_inputs()))


def test_blocks_above_the_limit_see_no_text() -> None:
    """The text of the last block alone is taken away, all others keep theirs."""
    generator = build_generator(text_max_px=8)
    seen: list[Tensor] = []
    layer = generator.blocks["16"].conv
    handle = layer.register_forward_hook(lambda _, given, __: seen.append(given[1]))
    latents, texts = draw_inputs()
    with torch.no_grad():
        generator(latents, texts)
        generator(latents, -texts)
    handle.remove()
    assert torch.equal(seen[0], seen[1])
    assert generator.text_path is not None
    assert len(generator.text_path.first.weight) == 5
    assert build_generator(text_concat_max_px=0).text_path is None


@pytest.mark.parametrize("limits", [{}, {"text_max_px": 16}, {"text_concat_max_px": 16}])
def test_limits_at_or_above_the_resolution_change_nothing(limits: dict[str, Any]) -> None:
    plain, limited = build_generator(), build_generator(**limits)
    assert plain.state_dict().keys() == limited.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(plain(*draw_inputs()), limited(*draw_inputs()))


@pytest.mark.parametrize("text_dim", [1, 3, 513])
@pytest.mark.parametrize("form", [{}, {"text_concat_max_px": 0}])
def test_odd_widths_of_clip(text_dim: int, form: dict[str, Any]) -> None:
    generator = build_generator(8, text_dim=text_dim, **form)
    with torch.no_grad():
        assert torch.isfinite(generator(*draw_inputs(text_dim))).all()


def test_an_unknown_style_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="style_input = 'w': use latent or affine"):
        build_generator(style_input="w")


@pytest.mark.parametrize("resolution_px", [4, 24, 100])
def test_a_resolution_that_is_no_power_of_two_is_refused(resolution_px: int) -> None:
    with pytest.raises(ConfigError, match=f"resolution_px = {resolution_px}: use a power of two"):
        build_generator(resolution_px)
