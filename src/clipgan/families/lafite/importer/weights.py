"""Official LAFITE weights -> networks and a bundle of ours, with all official forms switched on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from clipgan.errors import ConfigError, ImportWeightsError
from clipgan.families.lafite.importer.names import (
    WeightName,
    list_discriminator_names,
    list_generator_names,
    rename_weights,
)
from clipgan.families.lafite.importer.snapshot import (
    LafiteSnapshot,
    OfficialNetwork,
    read_lafite_pickle,
)
from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.interop.inert_pickle import describe

MAX_RESOLUTION_PX = 1024
MAX_SIZE = 2**20
"""No width or count of a network is larger; keeps made-up ones from overflowing."""
_READ = ("change", "channel_base", "channel_max", "mbstd_group_size", "use_norm")
_DEFAULTS = {
    "change": 256,
    "channel_base": 32768,
    "channel_max": 512,
    "mbstd_group_size": 4,
    "use_norm": False,
}
"""The released code's values, for files that do not say."""
_SHOWN_BY_SHAPES = ("z_dim", "w_dim", "f_dim", "num_layers", "img_resolution")
_WITHOUT_WEIGHT = ("m_layer_features", "m_num_layers", "num_fp16_res")
_ONE_VALUE: dict[str, tuple[object, ...]] = {
    "c_dim": (0,),
    "img_channels": (3,),
    "use_fts": (True,),
    "conv_clamp": (256, None),
}
_Network = TypeVar("_Network", LafiteGenerator, LafiteDiscriminator)


@dataclass(frozen=True)
class ImportedNetworks:
    """Our networks with official weights: float32, on the CPU, in evaluation mode.

    Attributes:
        images_seen: real images shown in the official training; 0 where the file does not say.
        has_clamp: the official layers cut activations to +-256, as ours always do. False: it was
            trained in float32 throughout, and ours differs where activations are larger.
    """

    generator: LafiteGenerator
    discriminator: LafiteDiscriminator | None
    images_seen: int
    has_clamp: bool


def load_lafite_weights(path: Path) -> ImportedNetworks:
    """Read an official snapshot, executing nothing in it, and build our networks from it.

    Raises:
        ImportWeightsError: the file cannot be used (:func:`read_lafite_pickle`), or its networks
            are not those of LAFITE; names the weight or option.
    """
    snapshot = read_lafite_pickle(path)
    try:
        return _build_networks(snapshot)
    except ImportWeightsError as error:
        raise ImportWeightsError(f"{path}: {error}") from None


def _build_networks(snapshot: LafiteSnapshot) -> ImportedNetworks:
    settings = _read_settings("generator", snapshot.generator)
    generator = _build_generator(snapshot.generator, settings)
    discriminator = None
    if snapshot.discriminator is not None:
        own = _read_settings("discriminator", snapshot.discriminator)
        discriminator = _build_discriminator(snapshot.discriminator, own, generator)
    clamp = settings.get("conv_clamp", 256) is not None
    return ImportedNetworks(generator, discriminator, snapshot.images_seen, clamp)


def _read_settings(network: str, official: OfficialNetwork) -> dict[str, Any]:
    """Constructor arguments without their grouping.

    Raises:
        ImportWeightsError: an option is unknown and switched on, or has a value we cannot follow.
    """
    flat = {**_DEFAULTS}
    groups = [value for value in official.settings.values() if isinstance(value, dict)]
    single = {k: v for k, v in official.settings.items() if not isinstance(v, dict)}
    for name, value in (item for group in (single, *groups) for item in group.items()):
        label = f"its {network}'s option {describe(str(name))}"
        known = name in (*_READ, *_SHOWN_BY_SHAPES, *_WITHOUT_WEIGHT)
        if name in _ONE_VALUE:
            if not isinstance(value, int | None) or value not in _ONE_VALUE[name]:
                raise ImportWeightsError(f"{label} is not {_ONE_VALUE[name][0]}: not supported")
        elif not known and value is not None and value is not False:
            raise ImportWeightsError(f"{label} is unknown: the file comes from other code")
        flat[name] = value
    for name, value in flat.items():
        fits = type(value) is bool if name == "use_norm" else _is_size(value)
        if name in _READ and not fits:
            raise ImportWeightsError(f"its {network}'s option {name} is out of range: damaged")
    return flat


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIZE


def _build_generator(official: OfficialNetwork, settings: dict[str, Any]) -> LafiteGenerator:
    weights = official.weights
    resolution = _find_resolution(weights, r"synthesis\.b(\d+)\.")
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in weights)
    if settings["change"] < 4:
        raise ImportWeightsError("its generator's option change is below 4: not supported")
    names = list(list_generator_names(resolution, layers, settings["change"]))
    _check_names("generator", names, weights)
    style_dim, latent_dim = _read_matrix(weights, "mapping.fc0.weight")
    first_layer = "synthesis.b4.conv1.pre"
    _, text_dim = _read_matrix(weights, f"{first_layer}_0.weight")
    text_hidden_dim, _ = _read_matrix(weights, f"{first_layer}_1.weight")
    return _build_module(
        "generator",
        lambda: LafiteGenerator(
            resolution_px=resolution,
            text_dim=text_dim,
            latent_dim=latent_dim,
            style_dim=style_dim,
            text_hidden_dim=text_hidden_dim,
            mapping_layers=layers,
            channel_base=settings["channel_base"],
            channel_max=settings["channel_max"],
            text_gain=1.0,
            text_learning_rate_multiplier=0.01,
            style_input="latent",
            text_max_px=MAX_RESOLUTION_PX,
            text_concat_max_px=settings["change"],
        ),
        names,
        weights,
    )


def _build_discriminator(
    official: OfficialNetwork, settings: dict[str, Any], generator: LafiteGenerator
) -> LafiteDiscriminator:
    weights = official.weights
    resolution = _find_resolution(weights, r"b(\d+)\.")
    if resolution != generator.resolution_px:
        raise ImportWeightsError(
            f"its discriminator is for {resolution} px, its generator for "
            f"{generator.resolution_px} px: the file was put together by hand"
        )
    names = list(list_discriminator_names(resolution))
    _check_names("discriminator", names, weights)
    return _build_module(
        "discriminator",
        lambda: LafiteDiscriminator(
            resolution_px=resolution,
            text_dim=generator.text_dim,
            channel_base=settings["channel_base"],
            channel_max=settings["channel_max"],
            minibatch_std_group=settings["mbstd_group_size"],
            semantic_logit="batch_sum",
            normalize_semantic=settings["use_norm"],
        ),
        names,
        weights,
    )


def _find_resolution(weights: Mapping[str, Tensor], pattern: str) -> int:
    sides = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
    side = max(sides, default=0)
    if side < 8 or side > MAX_RESOLUTION_PX or side & (side - 1):
        raise ImportWeightsError(
            f"its largest block is for {side} px; LAFITE's networks make a power of two from 8 to "
            f"{MAX_RESOLUTION_PX}"
        )
    return side


def _check_names(network: str, names: list[WeightName], weights: Mapping[str, Tensor]) -> None:
    wanted = [name.official for name in names]
    missing = [name for name in wanted if name not in weights]
    if missing:
        hint = "; plain StyleGAN2 has no text" if ".pre_" in missing[0] else ""
        raise ImportWeightsError(f"is no LAFITE {network}: {missing[0]} is missing{hint}")
    unknown = sorted(set(weights) - set(wanted))
    if unknown:
        raise ImportWeightsError(
            f"is no LAFITE {network}: {describe(unknown[0])} is of another network"
        )


def _read_matrix(weights: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    if weights[name].ndim != 2:
        raise ImportWeightsError(f"{name} is no matrix: damaged")
    rows, columns = weights[name].shape
    return rows, columns


def _build_module(
    network: str,
    build: Callable[[], _Network],
    names: list[WeightName],
    weights: Mapping[str, Tensor],
) -> _Network:
    try:
        # Shapes first, without memory: they are the file's word. Random states stay untouched.
        with torch.device("meta"):
            shapes = build().state_dict()
        _check_shapes(network, names, weights, shapes)
        with torch.random.fork_rng(devices=[]):
            module = build()
    except ConfigError as error:
        raise ImportWeightsError(f"its {network} cannot be built: {error}") from None
    module.load_state_dict(rename_weights(names, weights), assign=True)
    return module.eval()


def _check_shapes(
    network: str,
    names: list[WeightName],
    weights: Mapping[str, Tensor],
    shapes: Mapping[str, Tensor],
) -> None:
    for name in names:
        wanted = shapes[name.ours] if name.row is None else shapes[name.ours][name.row]
        stored = weights[name.official]
        if stored.shape != wanted.shape:
            raise ImportWeightsError(
                f"{network} weight {name.official} is {tuple(stored.shape)}, its options ask for "
                f"{tuple(wanted.shape)}: damaged, or not of LAFITE"
            )
