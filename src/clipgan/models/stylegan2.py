"""Layers of StyleGAN2 (Karras et al., arXiv 1912.04958), written for speed and double backward.

Every operation can be differentiated twice, as R1 and path length need. Activations are in
channels_last order: the depthwise resampling filter is several times faster there, on CPUs and on
GPUs. Weights are stored with unit variance and multiplied with ``1 / sqrt(fan_in)`` at run time
(equalised learning rate); linear layers may also store their weights divided by a learning-rate
multiplier.

Constant gains are folded into weights, biases and demodulation, because
``g * leaky_relu(x) == leaky_relu(g * x)`` for ``g > 0``: each saves a pass over the activations.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.errors import ConfigError
from clipgan.models.resampling import ResampleFilter

LEAKY_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2.0)
ACTIVATION_CLAMP = 256.0
"""Every convolution's output is cut to this range, in every precision, so that a generator trained
in bf16 is the same function in fp32."""
RESIDUAL_GAIN = math.sqrt(0.5)
EPSILON = 1e-8


NUM_REDUCED_RESOLUTIONS = 4
"""StyleGAN2-ADA's number (Karras et al. 2020, arXiv 2006.06676); a training sets its own."""


def choose_block_dtype(
    side: int, resolution_px: int, compute_dtype: torch.dtype, num_reduced: int
) -> torch.dtype:
    """Choose the compute dtype for the ``num_reduced`` highest resolutions, else float32.

    The 4x4 block always has float32.
    """
    first = max(resolution_px >> (num_reduced - 1), 8)
    return compute_dtype if side >= first else torch.float32


def compute_block_channels(
    resolution_px: int, channel_base: int, channel_max: int
) -> dict[int, int]:
    """Compute the channels of the block of each side from 4 px to ``resolution_px``.

    Raises:
        ConfigError: the side is no power of two from 8, or a block is left without channels.
    """
    if resolution_px < 8 or resolution_px & (resolution_px - 1):
        raise ConfigError(f"resolution_px = {resolution_px}: use a power of two from 8")
    if channel_base < resolution_px:
        raise ConfigError(
            f"channel_base = {channel_base} leaves no channel at {resolution_px} px: "
            f"use at least {resolution_px}"
        )
    sides = [4 << step for step in range(resolution_px.bit_length() - 2)]
    return {side: min(channel_base // side, channel_max) for side in sides}


def clamped_leaky_relu(inputs: Tensor, clamp: float = ACTIVATION_CLAMP) -> Tensor:
    """Apply leaky ReLU of slope 0.2 and a clamp; the caller folds the gain of sqrt(2) in.

    ``inputs`` is overwritten. ``hardtanh`` is a clamp whose backward pass reads the data once, not
    three times.
    """
    return F.hardtanh(F.leaky_relu_(inputs, LEAKY_SLOPE), -clamp, clamp)


def normalize_second_moment(inputs: Tensor) -> Tensor:
    """Scale each row of (N, D) to a mean square of one."""
    return inputs * (inputs.square().mean(1, keepdim=True) + EPSILON).rsqrt()


class EqualizedLinear(nn.Module):
    """Fully connected layer with run-time weight scale.

    Args:
        learning_rate_multiplier: the layer learns slower by this factor; weights are stored
            divided by it.
        bias: initial value of every bias.
        activate: leaky ReLU times sqrt(2) behind the layer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        learning_rate_multiplier: float = 1.0,
        bias: float = 0.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(out_features, in_features) / learning_rate_multiplier
        )
        self.bias = nn.Parameter(torch.full((out_features,), bias / learning_rate_multiplier))
        gain = ACTIVATION_GAIN if activate else 1.0
        self.activate = activate
        self.weight_gain = gain * learning_rate_multiplier / math.sqrt(in_features)
        self.bias_gain = gain * learning_rate_multiplier

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)."""
        outputs = F.linear(inputs, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return F.leaky_relu(outputs, LEAKY_SLOPE) if self.activate else outputs


class LayerwiseLinear(nn.Module):
    """The same shape of :class:`EqualizedLinear` for each of L layers, run as one batched product.

    Always followed by leaky ReLU times sqrt(2).
    """

    def __init__(
        self,
        num_layers: int,
        in_features: int,
        out_features: int,
        *,
        learning_rate_multiplier: float,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(num_layers, out_features, in_features) / learning_rate_multiplier
        )
        self.bias = nn.Parameter(torch.zeros(num_layers, out_features))
        self.weight_gain = ACTIVATION_GAIN * learning_rate_multiplier / math.sqrt(in_features)
        self.bias_gain = ACTIVATION_GAIN * learning_rate_multiplier

    def forward(self, inputs: Tensor) -> Tensor:
        """(L, N, in_features) or (N, in_features) for all layers -> (L, N, out_features)."""
        num_layers = len(self.weight)
        outputs = torch.baddbmm(
            (self.bias * self.bias_gain)[:, None],
            inputs.expand(num_layers, *inputs.shape[-2:]),
            self.weight.transpose(1, 2) * self.weight_gain,
        )
        return F.leaky_relu(outputs, LEAKY_SLOPE)


def compute_demodulation(weight: Tensor, modulation: Tensor) -> Tensor:
    """Compute the factor that brings a modulated convolution's output channels to unit variance.

    ``1 / sqrt(sum over in, k, k of (modulation * weight)^2 + 1e-8)`` (StyleGAN2, equation 3).

    Args:
        weight: (out, in, k, k).
        modulation: (N, in).

    Returns:
        (N, out).
    """
    energy = weight.square().sum((2, 3))
    return (modulation.square() @ energy.t() + EPSILON).rsqrt()


class ModulatedConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU: one layer of the synthesis network.

    In its input-scaled form (StyleGAN2, section 2.2): activations are scaled by the modulation, one
    convolution with shared weights runs for the whole batch, its output is scaled by the
    demodulation.
    """

    noise_constant: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, resolution_px: int, *, up: bool
    ) -> None:
        super().__init__()
        self.up = up
        self.resolution_px = resolution_px
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_constant", torch.randn(resolution_px, resolution_px))
        if up:
            self.filter = ResampleFilter()

    def forward(self, inputs: Tensor, modulation: Tensor, noise: Tensor | None) -> Tensor:
        """One synthesis layer.

        Args:
            inputs: (N, in, H, W) of the block's number format.
            modulation: (N, in) float32.
            noise: broadcastable to (N, 1, R, R), before its learned strength; None: no noise.

        Returns:
            (N, out, R, R) of the inputs' number format; R is 2H where the layer upsamples.
        """
        outputs, demodulation = self.convolve(inputs, modulation)
        dtype = outputs.dtype
        scale = (demodulation * ACTIVATION_GAIN).to(dtype)[:, :, None, None]
        shift = (self.bias * ACTIVATION_GAIN).to(dtype)[:, None, None]
        outputs = torch.addcmul(shift, outputs, scale)
        if noise is not None:
            outputs = outputs.add_((noise * (self.noise_strength * ACTIVATION_GAIN)).to(dtype))
        return clamped_leaky_relu(outputs)

    def convolve(self, inputs: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve; the result (N, out, R, R) is to be multiplied with the factor (N, out)."""
        weight: Tensor = self.weight
        if inputs.dtype != torch.float32:
            # Demodulation cancels any scale, so numbers are brought near one, which a short format
            # represents best. The scales do not change the result and need no gradient.
            fan_in = weight[0].numel()
            largest = weight.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=EPSILON)
            weight = weight / (largest * math.sqrt(fan_in))
            largest = modulation.detach().abs().amax(1, keepdim=True).clamp(min=EPSILON)
            modulation = modulation / largest
        demodulation = compute_demodulation(weight, modulation)
        inputs = inputs * modulation.to(inputs.dtype)[:, :, None, None]
        return self._resample(inputs, weight.to(inputs.dtype)), demodulation

    def _resample(self, inputs: Tensor, weight: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(inputs, weight, padding=1)
        outputs = F.conv_transpose2d(inputs, weight.transpose(0, 1), stride=2)
        filtered: Tensor = self.filter(outputs, padding=1, gain=4.0)
        return filtered


class ToRgb(nn.Module):
    """Modulated 1x1 convolution to three channels, without demodulation, noise or activation."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(self, inputs: Tensor, modulation: Tensor) -> Tensor:
        """(N, in, H, W) and (N, in) float32 -> (N, 3, H, W) float32."""
        samples, _, height, width = inputs.shape
        # Weights of each sample are small; scaling the activations would be a pass over the block.
        weight = modulation[:, :, None] * (self.weight[:, :, 0, 0].t() * self.weight_gain)
        pixels = inputs.permute(0, 2, 3, 1).flatten(1, 2) @ weight.to(inputs.dtype)
        colors = (pixels.float() + self.bias).clamp(-ACTIVATION_CLAMP, ACTIVATION_CLAMP)
        return colors.view(samples, height, width, 3).permute(0, 3, 1, 2)


class EqualizedConv(nn.Module):
    """Convolution of the discriminator, with optional bias and activation, or halving of the side.

    Args:
        gain: factor on the output (and on the clamp), folded into weight and bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        down: bool = False,
        activate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.down = down
        self.kernel = kernel
        self.activate = activate
        self.clamp = ACTIVATION_CLAMP * gain
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if activate else None
        self.bias_gain = gain * (ACTIVATION_GAIN if activate else 1.0)
        self.weight_gain = self.bias_gain / math.sqrt(in_channels * kernel * kernel)
        if down:
            self.filter = ResampleFilter()

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H, W), or half the side where ``down``."""
        dtype = inputs.dtype
        weight = (self.weight * self.weight_gain).to(dtype)
        bias = None if self.bias is None else (self.bias * self.bias_gain).to(dtype)
        stride, padding = 1, self.kernel // 2
        if self.down and self.kernel == 1:
            inputs = self.filter.downsample(inputs)
        elif self.down:
            inputs, stride, padding = self.filter(inputs, padding=2), 2, 0
        outputs = F.conv2d(inputs, weight, bias, stride=stride, padding=padding)
        return clamped_leaky_relu(outputs, self.clamp) if self.activate else outputs


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the side: 3x3, 3x3 down; skip 1x1 down; both times sqrt(1/2)."""

    def __init__(self, in_channels: int, out_channels: int, *, from_rgb: bool) -> None:
        super().__init__()
        self.from_rgb = EqualizedConv(3, in_channels, 1) if from_rgb else None
        self.conv = EqualizedConv(in_channels, in_channels, 3)
        self.conv_down = EqualizedConv(in_channels, out_channels, 3, down=True, gain=RESIDUAL_GAIN)
        self.skip = EqualizedConv(
            in_channels, out_channels, 1, down=True, activate=False, gain=RESIDUAL_GAIN
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, in, H, W), or images for the first block -> (N, out, H/2, W/2)."""
        if self.from_rgb is not None:
            inputs = self.from_rgb(inputs)
        outputs: Tensor = self.skip(inputs) + self.conv_down(self.conv(inputs))
        return outputs


def compute_minibatch_stddev(inputs: Tensor, group_size: int) -> Tensor:
    """Compute how much each sample's group of the batch varies (arXiv 1710.10196, section 3).

    With n = N / G groups of G = min(group_size, N), sample i belongs to group i mod n.

    Args:
        inputs: (N, C, H, W) float32; N a multiple of G.

    Returns:
        (N,): the biased standard deviation over the group, averaged over channels and pixels.
    """
    samples = len(inputs)
    size = min(group_size, samples)
    groups = inputs.reshape(size, samples // size, *inputs.shape[1:])
    deviation = (groups.var(0, unbiased=False) + EPSILON).sqrt()
    return deviation.mean((1, 2, 3)).repeat(size)
