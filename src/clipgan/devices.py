"""Devices and number formats by their names in params.yaml."""

from __future__ import annotations

import re

import torch

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
