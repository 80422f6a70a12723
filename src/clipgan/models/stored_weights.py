"""Files of stored weights: safetensors in fp16 or fp32, and the JSON that describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clipgan.artifacts import hash_file
from clipgan.errors import CheckpointError

FORMAT_VERSION = 1
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def convert_weights(name: str, module: nn.Module, dtype: str) -> dict[str, Tensor]:
    """Copy weights and buffers of the network ``name`` to the CPU, as fp16 or fp32.

    Raises:
        CheckpointError: a weight is not finite, or too large for ``dtype``.
    """
    converted = {}
    for key, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} weight {key} is not finite: not saved")
        converted[key] = tensor.detach().to("cpu", DTYPES[dtype]).contiguous()
        if not torch.isfinite(converted[key]).all():
            raise CheckpointError(f"{name} weight {key} is too large for {dtype}: save in fp32")
    return converted


def read_description(
    path: Path, kinds: Mapping[str, type], *, missing: str, remedy: str
) -> dict[str, Any]:
    """Read the JSON file that describes stored weights, without its format version.

    Args:
        kinds: keys that must be there -> type of the value.
        missing: what to say where there is no such file.
        remedy: what to do about a damaged file.

    Raises:
        CheckpointError: the file is missing, damaged or of another format; names the key.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path.parent}: no {path.name}, so {missing}") from None
    except ValueError:
        raise CheckpointError(f"{path}: damaged; {remedy}") from None
    version = tree.pop("format_version", None) if isinstance(tree, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version = {version!r}, this program reads {FORMAT_VERSION}; use the "
            f"program version that wrote it, or {remedy}"
        )
    for key, kind in kinds.items():
        if not isinstance(tree.get(key), kind):
            raise CheckpointError(
                f"{path}: {key} = {tree.get(key)!r} is no {kind.__name__}; {remedy}"
            )
    return dict(tree)


def load_weights(path: Path, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    """Read the tensors of a bundle's file as fp32, on the CPU.

    Args:
        hashes: file name -> SHA-256, from ``bundle.json``.

    Raises:
        CheckpointError: the file is missing, truncated or not the one that was saved.
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
    sha256 = hash_file(path)
    if sha256 != hashes[path.name]:
        raise CheckpointError(
            f"{path}: SHA-256 {sha256[:12]}..., bundle.json says {hashes[path.name][:12]}...; "
            "restore or retrain the bundle"
        )
    # They are copied because tensors may still be mapped from the file.
    return {key: tensor.to(torch.float32, copy=True) for key, tensor in tensors.items()}


def check_shapes(path: Path, wanted: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Refuse the tensors of ``path`` where names or shapes differ from those ``wanted``.

    Raises:
        CheckpointError: names the first tensor that differs.
    """
    for key in [*wanted, *stored]:
        ours = tuple(wanted[key].shape) if key in wanted else None
        theirs = tuple(stored[key].shape) if key in stored else None
        if ours == theirs:
            continue
        if theirs is None:
            problem = f"weight {key} {ours} is missing"
        elif ours is None:
            problem = f"weight {key} {theirs} belongs to another network"
        else:
            problem = f"weight {key} is {theirs}, bundle.json asks for {ours}"
        raise CheckpointError(f"{path}: {problem}; restore the bundle")
