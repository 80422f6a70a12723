"""The weights files of a bundle: safetensors in fp16 or fp32, checked by hash, name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clipgan.artifacts import hash_file
from clipgan.errors import CheckpointError

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def convert_weights(name: str, module: nn.Module, dtype: str) -> dict[str, Tensor]:
    """Weights and buffers of the network ``name`` on the CPU, as fp16 or fp32.

    Raises:
        CheckpointError: one is not finite, or too large for ``dtype``.
    """
    converted = {}
    for key, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} weight {key} is not finite: not saved")
        converted[key] = tensor.detach().to("cpu", DTYPES[dtype]).contiguous()
        if not torch.isfinite(converted[key]).all():
            raise CheckpointError(f"{name} weight {key} is too large for {dtype}: save in fp32")
    return converted


def load_weights(path: Path, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a file of a bundle as fp32, on the CPU.

    Args:
        hashes: SHA-256 by file name, of ``bundle.json``.

    Raises:
        CheckpointError: the file is missing, truncated or another one.
    """
    if path.name not in hashes:
        raise CheckpointError(
            f"{path.with_name('bundle.json')}: no hash of {path.name}; restore it"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; restore or retrain the bundle")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: truncated or no safetensors file ({error}); restore or retrain the bundle"
        ) from None
    found = hash_file(path)
    if found != hashes[path.name]:
        raise CheckpointError(
            f"{path}: SHA-256 {found[:12]}..., bundle.json says {hashes[path.name][:12]}...; "
            "restore or retrain the bundle"
        )
    # Copies: tensors may still be mapped from the file.
    return {key: tensor.to(torch.float32, copy=True) for key, tensor in tensors.items()}


def check_shapes(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Refuse the tensors of ``path`` where names or shapes are not those ``wanted``.

    Raises:
        CheckpointError: names the first one.
    """
    for key in [*wanted, *found]:
        ours = tuple(wanted[key].shape) if key in wanted else None
        theirs = tuple(found[key].shape) if key in found else None
        if ours == theirs:
            continue
        if theirs is None:
            problem = f"weight {key} {ours} is missing"
        elif ours is None:
            problem = f"weight {key} {theirs} belongs to another network"
        else:
            problem = f"weight {key} is {theirs}, bundle.json asks for {ours}"
        raise CheckpointError(f"{path}: {problem}; restore the bundle")
