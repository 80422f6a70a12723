"""Names of the official LAFITE networks' weights and where each lives in ours.

Resampling filters are left out: ours are constants, and theirs are checked to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

_LAYERS = {"conv0": "conv_up", "conv1": "conv", "torgb": "to_rgb"}
_KINDS = ("weight", "bias")


class WeightName(NamedTuple):
    """An official name, ours, and the row of ours that it fills (None: all of it)."""

    official: str
    ours: str
    row: int | None = None


def list_generator_names(
    resolution_px: int, mapping_layers: int, text_concat_max_px: int
) -> Iterator[WeightName]:
    """Every weight and buffer of the generator.

    Args:
        text_concat_max_px: blocks above it take the text by scale and shift (the code's
            "structure 1").
    """
    for layer in range(mapping_layers):
        for kind in _KINDS:
            yield WeightName(f"mapping.fc{layer}.{kind}", f"mapping_network.{layer}.{kind}")
    yield WeightName("mapping.w_avg", "latent_average")
    yield WeightName("synthesis.b4.const", "constant")
    row, side = 0, 4
    while side <= resolution_px:
        for theirs, ours in list(_LAYERS.items())[1 if side == 4 else 0 :]:
            prefix, layer_name = f"synthesis.b{side}.{theirs}", f"blocks.{side}.{ours}"
            for kind in _KINDS:
                yield WeightName(f"{prefix}.{kind}", f"{layer_name}.{kind}")
            if theirs != "torgb":
                yield WeightName(f"{prefix}.noise_strength", f"{layer_name}.noise_strength")
                yield WeightName(f"{prefix}.noise_const", f"{layer_name}.noise_constant")
            if side <= text_concat_max_px:
                yield from _list_concatenation(prefix, f"{layer_name}_affine", row)
                row += 1
            else:
                yield from _list_scale_shift(prefix, f"{layer_name}_affine")
        side *= 2


def _list_concatenation(official: str, ours: str, row: int) -> Iterator[WeightName]:
    for kind in _KINDS:
        yield WeightName(f"{official}.affine_0.{kind}", f"{ours}.{kind}")
        yield WeightName(f"{official}.pre_0.{kind}", f"text_path.first.{kind}", row)
        yield WeightName(f"{official}.pre_1.{kind}", f"text_path.second.{kind}", row)


def _list_scale_shift(official: str, ours: str) -> Iterator[WeightName]:
    for kind in _KINDS:
        yield WeightName(f"{official}.affine.{kind}", f"{ours}.style_affine.{kind}")
        for layer in range(3):
            yield WeightName(
                f"{official}.scale_layer_{layer}.{kind}", f"{ours}.scale.{layer}.{kind}"
            )
            yield WeightName(
                f"{official}.bias_layer_{layer}.{kind}", f"{ours}.shift.{layer}.{kind}"
            )


def list_discriminator_names(resolution_px: int) -> Iterator[WeightName]:
    """Every weight of the discriminator."""
    side = resolution_px
    while side > 4:
        layers = {"conv0": "conv", "conv1": "conv_down"}
        if side == resolution_px:
            layers["fromrgb"] = "from_rgb"
        for theirs, ours in layers.items():
            for kind in _KINDS:
                yield WeightName(f"b{side}.{theirs}.{kind}", f"blocks.{side}.{ours}.{kind}")
        yield WeightName(f"b{side}.skip.weight", f"blocks.{side}.skip.weight")
        side //= 2
    epilogue = {"conv": "conv", "fc": "trunk", "out": "realness", "fts": "semantic"}
    for theirs, ours in epilogue.items():
        for kind in _KINDS:
            yield WeightName(f"b4.{theirs}.{kind}", f"{ours}.{kind}")


def rename_weights(names: list[WeightName], official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official weights under our names, rows of one weight stacked; float32.

    Raises:
        KeyError: ``official`` lacks a name.
        RuntimeError: rows of one weight differ in shape.
    """
    rows: dict[str, list[Tensor]] = {}
    renamed: dict[str, Tensor] = {}
    for name in names:
        tensor = official[name.official].detach().float().contiguous()
        if name.row is None:
            renamed[name.ours] = tensor
        else:
            rows.setdefault(name.ours, []).append(tensor)
    return renamed | {ours: torch.stack(tensors) for ours, tensors in rows.items()}
