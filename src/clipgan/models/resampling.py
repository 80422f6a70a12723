"""Resampling with the filter of StyleGAN2 (arXiv 1912.04958), and all its derivatives."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)


class _Gather(torch.autograd.Function):
    """Depthwise correlation with a symmetric kernel; its gradient is :class:`_Spread`.

    Autograd's second derivative of a depthwise convolution would loop over the channels for a
    gradient of the kernel, which is not needed.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.settings = (stride, padding, images.shape[2:])
        channels = images.shape[1]
        kernel = kernel.expand(channels, 1, -1, -1)
        return F.conv2d(images, kernel, stride=stride, padding=padding, groups=channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (kernel,) = ctx.saved_tensors
        return _Spread.apply(gradients[0], kernel, *ctx.settings), None, None, None


class _Spread(torch.autograd.Function):
    """The adjoint of :class:`_Gather`, a transposed depthwise correlation.

    ``settings`` are stride, padding and (H, W) of the output.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(kernel)
        stride, padding, size = settings
        ctx.settings = (stride, padding)
        channels, taps = images.shape[1], kernel.shape[-1]
        extra = [
            side - ((given - 1) * stride - 2 * padding + taps)
            for side, given in zip(size, images.shape[2:], strict=True)
        ]
        dtype = images.dtype
        if stride > 1 and dtype == torch.bfloat16 and images.device.type == "cpu":
            # oneDNN has no bf16 form of this operation, and PyTorch's is 20 times slower.
            images, kernel = images.float(), kernel.float()
        kernel = kernel.expand(channels, 1, -1, -1)
        return F.conv_transpose2d(
            images, kernel, None, stride, padding, output_padding=extra, groups=channels
        ).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        return _Gather.apply(gradients[0], kernel, *ctx.settings), None, None, None, None


class ResampleFilter(nn.Module):
    """The 4x4 filter of StyleGAN2, the outer product of [1, 3, 3, 1] with itself.

    The image is padded with zeros. The kernel sums to one; it is not part of the state dict.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(RESAMPLE_TAPS)
        kernel = torch.outer(taps, taps)
        self.register_buffer("kernel", (kernel / taps.sum() ** 2)[None, None], persistent=False)

    def forward(
        self, images: Tensor, *, padding: int, stride: int = 1, gain: float = 1.0
    ) -> Tensor:
        """Pad (N, C, H, W) with zeros on all sides, filter, and keep every ``stride``-th pixel."""
        kernel = (self.kernel * gain).to(images.dtype)
        filtered: Tensor = _Gather.apply(images, kernel, stride, padding)
        return filtered

    def upsample(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W): insert zeros, filter, multiply by 4."""
        kernel = (self.kernel * 4.0).to(images.dtype)
        size = torch.Size([2 * side for side in images.shape[2:]])
        larger: Tensor = _Spread.apply(images, kernel, 2, 1, size)
        return larger

    def downsample(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H/2, W/2): filter and keep every second pixel from the first."""
        return self.forward(images, padding=1, stride=2)
