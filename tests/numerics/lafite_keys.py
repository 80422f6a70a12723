"""Names of the official LAFITE networks' weights and where each lives in ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class KeyPair(NamedTuple):
    """An official key, ours, and the row of ours it fills (None: all of it)."""

    official: str
    ours: str
    row: int | None = None


def generator_keys(
    resolution_px: int, mapping_layers: int, concat_max_px: int = 256
) -> Iterator[KeyPair]:
    """Every weight and buffer of the generator; resampling filters excepted, ours are constants.

    Blocks above ``concat_max_px`` (``change`` in the official configuration) hold the second
    structure of the text's way in.
    """
    for layer in range(mapping_layers):
        for kind in ("weight", "bias"):
            yield KeyPair(f"mapping.fc{layer}.{kind}", f"mapping_network.{layer}.{kind}")
    yield KeyPair("mapping.w_avg", "latent_average")
    yield KeyPair("synthesis.b4.const", "constant")
    names = {"conv0": "conv_up", "conv1": "conv", "torgb": "to_rgb"}
    row, side = 0, 4
    while side <= resolution_px:
        for theirs, ours in list(names.items())[1 if side == 4 else 0 :]:
            prefix, block = f"synthesis.b{side}.{theirs}", f"blocks.{side}.{ours}"
            for kind in ("weight", "bias"):
                yield KeyPair(f"{prefix}.{kind}", f"{block}.{kind}")
                if side > concat_max_px:
                    yield from _scale_shift_keys(prefix, f"{block}_affine", kind)
                    continue
                yield KeyPair(f"{prefix}.affine_0.{kind}", f"{block}_affine.{kind}")
                yield KeyPair(f"{prefix}.pre_0.{kind}", f"text_path.first.{kind}", row)
                yield KeyPair(f"{prefix}.pre_1.{kind}", f"text_path.second.{kind}", row)
            if theirs != "torgb":
                yield KeyPair(f"{prefix}.noise_strength", f"{block}.noise_strength")
                yield KeyPair(f"{prefix}.noise_const", f"{block}.noise_constant")
            row += 1
        side *= 2


def _scale_shift_keys(theirs: str, ours: str, kind: str) -> Iterator[KeyPair]:
    yield KeyPair(f"{theirs}.affine.{kind}", f"{ours}.style_affine.{kind}")
    for layer in range(3):
        yield KeyPair(f"{theirs}.scale_layer_{layer}.{kind}", f"{ours}.scale.{layer}.{kind}")
        yield KeyPair(f"{theirs}.bias_layer_{layer}.{kind}", f"{ours}.shift.{layer}.{kind}")


def discriminator_keys(resolution_px: int) -> Iterator[KeyPair]:
    """Every weight of the discriminator."""
    side = resolution_px
    while side > 4:
        layers = {"conv0": "conv", "conv1": "conv_down"}
        if side == resolution_px:
            layers["fromrgb"] = "from_rgb"
        for theirs, ours in layers.items():
            for kind in ("weight", "bias"):
                yield KeyPair(f"b{side}.{theirs}.{kind}", f"blocks.{side}.{ours}.{kind}")
        yield KeyPair(f"b{side}.skip.weight", f"blocks.{side}.skip.weight")
        side //= 2
    for theirs, ours in {
        "conv": "conv",
        "fc": "trunk",
        "out": "realness",
        "fts": "semantic",
    }.items():
        for kind in ("weight", "bias"):
            yield KeyPair(f"b4.{theirs}.{kind}", f"{ours}.{kind}")


def select_rows(pair: KeyPair, tensors: dict[str, Tensor]) -> Tensor:
    """The part of our tensor that is the official one's."""
    ours = tensors[pair.ours]
    return ours if pair.row is None else ours[pair.row]


def fill_state(
    pairs: Iterator[KeyPair], official: dict[str, Tensor], ours: dict[str, Tensor]
) -> None:
    """Copy official weights into our state dict, in place."""
    with torch.no_grad():
        for pair in pairs:
            select_rows(pair, ours).copy_(official[pair.official])
