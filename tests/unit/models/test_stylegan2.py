"""Layers of StyleGAN2: closed forms that hold for any weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clipgan.errors import ConfigError
from clipgan.models.resampling import ResampleFilter
from clipgan.models.stylegan2 import (
    ACTIVATION_CLAMP,
    EqualizedConv,
    EqualizedLinear,
    LayerwiseLinear,
    ModulatedConv,
    clamped_leaky_relu,
    compute_block_channels,
    compute_minibatch_stddev,
    normalize_second_moment,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_resampling_keeps_a_constant_away_from_the_border() -> None:
    images = torch.full((1, 2, 8, 8), 3.0)
    resample = ResampleFilter()
    up = resample.upsample(images)
    assert torch.allclose(up[:, :, 2:-2, 2:-2], torch.tensor(3.0))
    again = resample.downsample(up)
    assert torch.allclose(again[:, :, 2:-2, 2:-2], torch.tensor(3.0))
    assert float(up[0, 0, 0, 0]) < 3.0, "outside the image there are zeros"


@pytest.mark.parametrize("stride", [1, 2])
def test_resampling_gradients(stride: int) -> None:
    resample = ResampleFilter().double()
    images = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)

    def gather(x: Tensor) -> Tensor:
        return resample(x, padding=1, stride=stride, gain=4.0)

    for function in (gather, resample.upsample):
        assert torch.autograd.gradcheck(function, (images,))
        assert torch.autograd.gradgradcheck(lambda x, f=function: f(x).square(), (images,))


def test_upsample_is_the_adjoint_of_downsample() -> None:
    resample = ResampleFilter()
    small, large = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    left = (resample.upsample(small) * large).sum()
    right = (small * resample.downsample(large)).sum() * 4
    assert left.item() == pytest.approx(right.item(), rel=1e-5)


def test_demodulation_gives_unit_variance() -> None:
    layer = ModulatedConv(64, 32, 16, up=False)
    layer.weight.data.mul_(7.0)
    inputs = torch.randn(8, 64, 16, 16)
    outputs, demodulation = layer.convolve(inputs, 0.1 + 5 * torch.rand(8, 64))
    inside = (outputs * demodulation[:, :, None, None])[:, :, 1:-1, 1:-1]
    assert inside.var().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("up", [False, True])
def test_input_scaled_form_equals_weights_per_sample(up: bool) -> None:
    layer = ModulatedConv(3, 5, 8, up=up).double()
    inputs = torch.randn(2, 3, 4 if up else 8, 4 if up else 8, dtype=torch.float64)
    modulation = torch.randn(2, 3, dtype=torch.float64)
    outputs, demodulation = layer.convolve(inputs, modulation)
    ours = outputs * demodulation[:, :, None, None]
    for sample in range(2):
        weight = layer.weight * modulation[sample][:, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        plain = layer._resample(inputs[sample : sample + 1], weight)
        assert torch.allclose(ours[sample], plain[0])


def test_reduced_precision_normalisation_changes_nothing_but_rounding() -> None:
    layer = ModulatedConv(16, 16, 8, up=False)
    inputs, modulation = torch.randn(2, 16, 8, 8), 1000 * torch.randn(2, 16)
    full = layer(inputs, modulation, None)
    short = layer(inputs.bfloat16(), modulation, None)
    assert short.dtype == torch.bfloat16
    assert (short.float() - full).square().mean().sqrt() < 0.01 * full.std()


def test_activation_clamp_and_gain() -> None:
    extremes = torch.tensor([-1e9, -1.0, 1.0, 1e9])
    wanted = [-ACTIVATION_CLAMP, -0.2, 1.0, ACTIVATION_CLAMP]
    assert clamped_leaky_relu(extremes.clone()).tolist() == pytest.approx(wanted)
    conv = EqualizedConv(1, 1, 1, gain=0.5)
    conv.weight.data.fill_(1.0)
    outputs = conv(torch.tensor([1.0, 1e9]).view(2, 1, 1, 1)).flatten()
    wanted = [0.5 * math.sqrt(2), 0.5 * ACTIVATION_CLAMP]
    assert outputs.tolist() == pytest.approx(wanted), "the gain scales the clamp too"


def test_equalised_layers_keep_unit_variance_at_the_start() -> None:
    inputs = torch.randn(256, 128)
    linear = EqualizedLinear(128, 256, learning_rate_multiplier=0.01)
    assert linear(inputs).var().item() == pytest.approx(1.0, abs=0.1)
    active = EqualizedLinear(128, 256, activate=True)(inputs)
    assert active.square().mean().item() == pytest.approx(1.04, abs=0.1)
    assert EqualizedLinear(4, 3, bias=1.0)(torch.zeros(1, 4)).tolist() == [[1.0, 1.0, 1.0]]


def test_layerwise_linear_is_a_linear_for_each_layer() -> None:
    layers = LayerwiseLinear(3, 6, 4, learning_rate_multiplier=0.01)
    layers.bias.data.normal_()
    inputs = torch.randn(5, 6)
    outputs = layers(inputs)
    assert outputs.shape == (3, 5, 4)
    for index in range(3):
        single = EqualizedLinear(6, 4, learning_rate_multiplier=0.01, activate=True)
        single.weight.data.copy_(layers.weight[index])
        single.bias.data.copy_(layers.bias[index])
        assert torch.allclose(outputs[index], single(inputs), atol=1e-6)


def test_minibatch_stddev_groups_interleaved_samples() -> None:
    # Samples 0, 2, 4, 6 are one group, 1, 3, 5, 7 the other; the second group is constant.
    inputs = torch.zeros(8, 2, 3, 3)
    inputs[[0, 4]] = 1.0
    spread = compute_minibatch_stddev(inputs, 4)
    assert spread[0::2].tolist() == pytest.approx([0.5] * 4)
    assert spread[1::2].tolist() == pytest.approx([1e-4] * 4)
    assert compute_minibatch_stddev(inputs[:2], 4).shape == (2,), "a small batch is one group"


def test_second_moment() -> None:
    rows = normalize_second_moment(5 * torch.randn(4, 100))
    assert torch.allclose(rows.square().mean(1), torch.ones(4), atol=1e-5)


def test_block_channels() -> None:
    assert compute_block_channels(32, 512, 100) == {4: 100, 8: 64, 16: 32, 32: 16}
    with pytest.raises(ConfigError, match="resolution_px = 48: use a power of two"):
        compute_block_channels(48, 512, 64)
    with pytest.raises(ConfigError, match="channel_base = 32 leaves no channel at 64 px"):
        compute_block_channels(64, 32, 64)
