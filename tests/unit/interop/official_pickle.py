"""Pickles in the layout that LAFITE's code writes, made without that code.

Networks there are objects whose pickle is a call of ``_reconstruct_persistent_obj`` with the source
of their class and their attributes; other dicts are ``dnnlib.util.EasyDict``.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.numerics.lafite_reference import draw, official_weights

CANARY = "lafite_import_canary"
SOURCE = f"import sys\nsys.modules[{CANARY!r}] = sys\nraise SystemExit('executed')\n"
BUFFERS = ("resample_filter", "noise_const", "w_avg")
SLOW = ("fc", "pre_", "scale_layer_0", "scale_layer_1", "bias_layer_0", "bias_layer_1")
FILTER = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


@dataclass(eq=False)
class Network:
    """Stands for an object of the official code."""

    class_name: str
    state: dict[str, Any]


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError(f"the official code ran: {meta['class_name']}")


class EasyDict(dict[str, Any]):
    """A dict of the official code."""


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
EasyDict.__module__ = "dnnlib.util"


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Network):
            return NotImplemented
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": value.class_name,
            "state": value.state,
        }
        return _reconstruct_persistent_obj, (meta,)


@contextmanager
def _official_modules() -> Iterator[None]:
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    modules = {name: ModuleType(name) for name in names}
    modules["torch_utils.persistence"].__dict__["_reconstruct_persistent_obj"] = (
        _reconstruct_persistent_obj
    )
    modules["dnnlib.util"].__dict__["EasyDict"] = EasyDict
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def dump(tree: object, protocol: int = 4) -> bytes:
    """Pickle a tree of networks, dicts and tensors as the official code does."""
    buffer = io.BytesIO()
    with _official_modules():
        _Pickler(buffer, protocol).dump(tree)
    data = buffer.getvalue()
    # What numpy before 2 wrote; only protocol 3 spells names without a length.
    return data.replace(b"cnumpy._core.", b"cnumpy.core.") if protocol == 3 else data


def build_network(
    class_name: str, weights: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> Network:
    """A network with the weights under the names of a state dict."""
    root = Network(class_name, _blank_state())
    for name, tensor in weights.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            children = module.state["_modules"]
            module = children.setdefault(part, Network("Layer", _layer_state(part)))
        if last in BUFFERS:
            module.state["_buffers"][last] = tensor
        else:
            module.state["_parameters"][last] = torch.nn.Parameter(tensor, requires_grad=False)
    root.state["_init_args"] = ()
    root.state["_init_kwargs"] = easy(settings)
    return root


def easy(tree: Mapping[str, Any]) -> EasyDict:
    """A mapping, and those in it, as the official code's dicts."""
    return EasyDict(
        {key: easy(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    )


def _blank_state() -> dict[str, Any]:
    hooks = ("_backward_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks")
    return {
        "training": False,
        "_parameters": OrderedDict(),
        "_buffers": OrderedDict(),
        "_non_persistent_buffers_set": set(),
        **{name: OrderedDict() for name in hooks},
        "_modules": OrderedDict(),
    }


def _layer_state(name: str) -> dict[str, Any]:
    state = {**_blank_state(), "activation": "lrelu", "weight_gain": np.float64(0.25)}
    if name.startswith(("conv", "torgb", "skip", "fromrgb")):
        state |= {"conv_clamp": 256, "act_gain": np.float32(2**0.5), "up": np.int64(2)}
    if name.startswith((*SLOW, "affine", "out", "fts", "scale_layer_2", "bias_layer_2")):
        state["bias_gain"] = 0.01 if name.startswith(SLOW) and name != "fc" else 1
    return state


def with_filters(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Official weights by the reference's rule, resampling filters too, in the file's order."""
    weights = official_weights(dict(shapes))
    return {name: weights.get(name, FILTER) for name in shapes}


def generator_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the official generator, grouped as its code groups them."""
    return {
        "z_dim": config["z_dim"],
        "w_dim": config["w_dim"],
        "m_layer_features": config["f_dim"],
        "m_num_layers": 8,
        "mapping_kwargs": {"num_layers": config["mapping_num_layers"]},
        "synthesis_kwargs": {
            "channel_base": config["channel_base"],
            "channel_max": config["channel_max"],
            "num_fp16_res": 4,
            "conv_clamp": 256,
            "change": config["change"],
            "f_dim": config["f_dim"],
        },
        "c_dim": 0,
        "img_resolution": config["img_resolution"],
        "img_channels": 3,
    }


def discriminator_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the official discriminator."""
    return {
        "use_norm": False,
        "use_fts": True,
        "block_kwargs": {},
        "mapping_kwargs": {},
        "epilogue_kwargs": {"mbstd_group_size": 4, "f_dim": config["f_dim"]},
        "channel_base": config["channel_base"],
        "channel_max": config["channel_max"],
        "num_fp16_res": 4,
        "conv_clamp": 256,
        "c_dim": 0,
        "img_resolution": config["img_resolution"],
        "img_channels": 3,
    }


def build_snapshot(
    config: Mapping[str, Any],
    generator_shapes: Mapping[str, list[int]],
    discriminator_shapes: Mapping[str, list[int]] | None,
) -> dict[str, Any]:
    """The dict of a training snapshot; the generator that is not averaged has other weights."""
    averaged = with_filters(generator_shapes)
    plain = {name: draw(f"plain/{name}", tuple(tensor.shape)) for name, tensor in averaged.items()}
    settings = generator_settings(config)
    snapshot: dict[str, Any] = {
        "training_set_kwargs": easy({"path": "./data.zip", "xflip": True, "max_size": 7}),
        "G": build_network("Generator", plain, settings),
        "D": None,
        "G_ema": build_network("Generator", averaged, settings),
        "augment_pipe": None,
    }
    if discriminator_shapes is not None:
        snapshot["D"] = build_network(
            "Discriminator", with_filters(discriminator_shapes), discriminator_settings(config)
        )
    return snapshot


TINY = {
    "img_resolution": 8,
    "z_dim": 3,
    "w_dim": 5,
    "f_dim": 4,
    "mapping_num_layers": 1,
    "channel_base": 16,
    "channel_max": 2,
    "change": 256,
}
TINY_HIDDEN = 6


def tiny_shapes(text: int = 4) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Shapes of the smallest generator and discriminator: 8 px, two channels; ``text``: f_dim."""
    latent, style, hidden = 3, 5, TINY_HIDDEN
    middle = (text + hidden) // 2
    generator: dict[str, list[int]] = {"mapping.w_avg": [style], "mapping.fc0.weight": [5, latent]}
    generator |= {"mapping.fc0.bias": [style], "synthesis.b4.const": [2, 4, 4]}
    for layer in ("b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb"):
        prefix, side = f"synthesis.{layer}", int(layer[1])
        rgb = layer.endswith("torgb")
        generator |= {
            f"{prefix}.weight": [3, 2, 1, 1] if rgb else [2, 2, 3, 3],
            f"{prefix}.bias": [3] if rgb else [2],
            f"{prefix}.pre_0.weight": [middle, text],
            f"{prefix}.pre_0.bias": [middle],
            f"{prefix}.pre_1.weight": [hidden, middle],
            f"{prefix}.pre_1.bias": [hidden],
            f"{prefix}.affine_0.weight": [2, hidden + style],
            f"{prefix}.affine_0.bias": [2],
        }
        if not rgb:
            generator |= {
                f"{prefix}.noise_strength": [],
                f"{prefix}.noise_const": [side, side],
                f"{prefix}.resample_filter": [4, 4],
            }
    discriminator = {
        "b8.fromrgb.weight": [2, 3, 1, 1],
        "b8.fromrgb.bias": [2],
        "b8.conv0.weight": [2, 2, 3, 3],
        "b8.conv0.bias": [2],
        "b8.conv1.weight": [2, 2, 3, 3],
        "b8.conv1.bias": [2],
        "b8.skip.weight": [2, 2, 1, 1],
        "b4.conv.weight": [2, 3, 3, 3],
        "b4.conv.bias": [2],
        "b4.fc.weight": [2, 32],
        "b4.fc.bias": [2],
        "b4.out.weight": [1, 2],
        "b4.out.bias": [1],
        "b4.fts.weight": [text, 2],
        "b4.fts.bias": [text],
    }
    return generator, discriminator
