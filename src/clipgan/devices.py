"""Devices and number formats by their names in params.yaml."""

from __future__ import annotations

import re
from functools import lru_cache

import torch
from torch import Tensor

from clipgan.errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """``auto`` -> the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: no such kind of device, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise ConfigError(f"device = {name!r}: use auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device = {name!r}: this machine has {torch.cuda.device_count()} GPUs; use auto or cpu"
        )
    return device


@lru_cache(maxsize=64)
def build_constant(
    values: tuple[object, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Fixed numbers as a tensor that is made once a device, because copying them to a GPU in every
    call would wait for it every time. Do not change the result in place.

    Args:
        values: numbers, or tuples of them, equally long.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to ``device`` without waiting for a GPU's pending work."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
