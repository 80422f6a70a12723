"""The official GALIP weights (a ``.pth`` of netG, netD and netC) -> our networks.

The file is read with torch's weights-only loader: nothing in it is executed. Its copy of CLIP's
vision tower is compared with the one at hand and left out.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from clipgan.artifacts import describe_non_file
from clipgan.errors import ConfigError, ImportWeightsError
from clipgan.families.galip.networks.discriminator import GalipDiscriminator
from clipgan.families.galip.networks.generator import GalipGenerator
from clipgan.families.galip.networks.vit_features import VitTower

OFFICIAL_RESOLUTION_PX: Final = 224
"""Side of the last block, whatever the official configuration says of the image size."""
OFFICIAL_TAPPED_BLOCKS: Final = (1, 4, 8)
OFFICIAL_FIRST_PROMPTED_BLOCK: Final = 1
OFFICIAL_BRIDGE_WEIGHT: Final = 1.0
OFFICIAL_VIT_WEIGHT: Final = 0.1
TOWER_PREFIX: Final = "mapping.CLIP_ViT."
PARALLEL_PREFIX: Final = "module."
HALF_PRECISION_TOLERANCE: Final = 1e-3
"""CLIP loaded on a GPU is saved as float16: relative rounding of 5e-4."""

_GENERATOR_RULES: Final = (
    (r"^fc_code\.", "latent_projection."),
    (r"^mapping\.fc_prompt\.", "prompt_predictor."),
    (r"^mapping\.conv_fuse\.", "bridge_projection."),
    (r"^mapping\.conv\.", "merge."),
    (r"^mapping\.FBlocks\.(\d+)\.conv1\.", r"bridge_blocks.\1.conv_in."),
    (r"^mapping\.FBlocks\.(\d+)\.conv2\.", r"bridge_blocks.\1.conv_out."),
    (r"^mapping\.FBlocks\.(\d+)\.", r"bridge_blocks.\1."),
    (r"^GBlocks\.(\d+)\.c1\.", r"blocks.\1.conv_in."),
    (r"^GBlocks\.(\d+)\.c2\.", r"blocks.\1.conv_out."),
    (r"^GBlocks\.(\d+)\.c_sc\.", r"blocks.\1.shortcut."),
    (r"^GBlocks\.(\d+)\.", r"blocks.\1."),
    (r"^to_rgb\.1\.", "to_rgb."),
    (r"\.fuse1\.", ".fuse_in."),
    (r"\.fuse2\.", ".fuse_out."),
    (r"\.affine0\.", ".first."),
    (r"\.affine1\.", ".second."),
    (r"\.fc_gamma\.linear1\.", ".scale.0."),
    (r"\.fc_gamma\.linear2\.", ".scale.2."),
    (r"\.fc_beta\.linear1\.", ".shift.0."),
    (r"\.fc_beta\.linear2\.", ".shift.2."),
)
_DISCRIMINATOR_RULES: Final = (
    (r"^netD\.DBlocks\.(\d+)\.", r"blocks.\1."),
    (r"^netD\.main\.conv_s\.", "output.shortcut."),
    (r"^netD\.main\.", "output."),
    (r"^netC\.joint_conv\.0\.", "head.conv_in."),
    (r"^netC\.joint_conv\.2\.", "head.conv_out."),
    (r"\.conv_r\.", ".residual."),
    (r"\.gamma$", ".residual_gain"),
    (r"\.beta$", ".skip_gain"),
)
_UNUSED_SHORTCUT: Final = re.compile(r"^netD\.DBlocks\.\d+\.conv_s\.")
"""The official blocks make these convolutions and never call them."""


DAMAGE: Final = (
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What torch's weights-only loader raises on files that were cut, changed or are something else."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class OfficialGalip:
    """Networks of an official file, float32, in evaluation mode, on the CPU.

    The generator takes raw text features (``text_norm``) and has the tower attached; there is no
    discriminator where the file holds none.
    """

    generator: GalipGenerator
    discriminator: GalipDiscriminator | None
    epoch: int | None


@dataclass(frozen=True)
class GalipFile:
    """An official file as read: the state dicts of netG and, if they are there, netD and netC."""

    path: Path
    states: Mapping[str, dict[str, Tensor]]
    epoch: int | None


def read_galip_file(path: Path) -> GalipFile:
    """Read an official ``.pth``, with or without the prefixes of parallel training.

    Raises:
        ImportWeightsError: the file is missing, damaged, unsafe or of something else.
    """
    tree = _read_file(path)
    epoch = tree.get("epoch")
    return GalipFile(path, _select_states(path, tree), epoch if isinstance(epoch, int) else None)


def build_official_galip(file: GalipFile, tower: VitTower) -> OfficialGalip:
    """Our networks with the file's weights.

    Args:
        tower: the vision tower the weights were trained with, CLIP ViT-B/32 for the released ones.

    Raises:
        ImportWeightsError: the weights are of another network or not finite, or its CLIP is another
            one than ``tower``.
    """
    path, states = file.path, file.states
    generator_state = states["netG"]
    _check_tower(path, generator_state, tower)
    own = {k: v for k, v in generator_state.items() if not k.startswith(TOWER_PREFIX)}
    generator = _build(path, "netG", own, lambda: _build_generator(own, tower))
    _fill(path, generator, own, translate_generator_key)
    discriminator = None
    if "netD" in states and "netC" in states:
        pair = {f"{net}.{k}": v for net in ("netD", "netC") for k, v in states[net].items()}
        used = {k: v for k, v in pair.items() if not _UNUSED_SHORTCUT.match(k)}
        discriminator = _build(path, "netD", used, lambda: _build_discriminator(used, tower))
        _fill(path, discriminator, used, translate_discriminator_key)
    return OfficialGalip(generator, discriminator, file.epoch)


def translate_generator_key(name: str) -> str:
    """An official netG key -> ours."""
    return _translate(name, _GENERATOR_RULES)


def translate_discriminator_key(name: str) -> str:
    """An official key with its network's name in front (``netD.`` or ``netC.``) -> ours."""
    return _translate(name, _DISCRIMINATOR_RULES)


def _translate(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        what = describe_non_file(path)
        raise ImportWeightsError(f"{path}: {what}; name the official .pth file") from None
    except DAMAGE as error:
        raise ImportWeightsError(f"{path}: {_explain(str(error))}") from None
    if not isinstance(tree, dict):
        raise ImportWeightsError(
            f"{path}: holds a {type(tree).__name__}, and a GALIP file holds a dictionary with "
            "model.netG: name the official .pth file"
        )
    return tree


def _explain(problem: str) -> str:
    if "torch_utils.persistence" in problem or "dnnlib" in problem:
        return "a LAFITE pickle, no GALIP file: use `clipgan import-weights lafite`"
    if "TorchScript" in problem:
        return (
            "a TorchScript archive, such as a plain CLIP, no GALIP file: CLIP weights belong in "
            "features.clip_weights"
        )
    # Torch's own text names ways to load the file all the same, which would run what is in it.
    if "GLOBAL" in problem:
        return (
            "holds other things than weights, which loading would execute: nothing of it was "
            "loaded; take the file that the paper's authors published"
        )
    return "damaged, or no file of weights: download it again"


def _select_states(path: Path, tree: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    model = tree.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("netG"), Mapping):
        raise ImportWeightsError(f"{path}: {_identify(tree)}")
    states = {}
    for net, state in model.items():
        if net not in ("netG", "netD", "netC"):
            continue
        if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
            raise ImportWeightsError(f"{path}: model.{net} is no state dict: download it again")
        states[net] = {str(k).removeprefix(PARALLEL_PREFIX): v for k, v in state.items()}
    return states


def _identify(tree: Mapping[str, Any]) -> str:
    names = {str(key).removeprefix(PARALLEL_PREFIX) for key in tree}
    if any(name.startswith("visual.") for name in names):
        return "a plain CLIP, no GALIP file: CLIP weights belong in features.clip_weights"
    if {"G", "D", "G_ema"} & names:
        return "a LAFITE file, no GALIP file: use `clipgan import-weights lafite`"
    shown = ", ".join(sorted(names)[:4]) or "nothing"
    return f"no GALIP file: model.netG is missing, it holds {shown}; name the official .pth file"


def _check_tower(path: Path, state: Mapping[str, Tensor], tower: VitTower) -> None:
    """The file's CLIP must be the one at hand, up to rounding to half precision."""
    stored = {
        key.removeprefix(TOWER_PREFIX): value
        for key, value in state.items()
        if key.startswith(TOWER_PREFIX)
    }
    if not stored:
        raise ImportWeightsError(
            f"{path}: netG has no weights {TOWER_PREFIX}*, so its CLIP cannot be checked: name "
            "the file as it was released"
        )
    ours = tower.visual.state_dict()
    for key, value in stored.items():
        fits = key in ours and ours[key].shape == value.shape
        if not fits or not _is_close(value, ours[key]):
            raise ImportWeightsError(
                f"{path}: its CLIP differs from {tower.model} at hand in {key}: use the CLIP "
                "it was trained with (ViT-B-32 with OpenAI's weights for the released files)"
            )


def _is_close(stored: Tensor, ours: Tensor) -> bool:
    stored, ours = stored.float(), ours.detach().to("cpu", torch.float32)
    allowed = HALF_PRECISION_TOLERANCE * float(ours.abs().max())
    return bool((stored - ours).abs().max() <= allowed)


def _build(
    path: Path, net: str, state: Mapping[str, Tensor], build: Callable[[], Network]
) -> Network:
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise ImportWeightsError(f"{path}: weight {key} is not finite: download it again")
    try:
        with torch.random.fork_rng(devices=[]):
            return build()
    except KeyError as error:
        raise ImportWeightsError(
            f"{path}: weight {error.args[0]} of {net} is missing: name the file as it was released"
        ) from None
    except (ConfigError, IndexError) as error:
        raise ImportWeightsError(f"{path}: {net} is not GALIP's: {error}") from None


def _build_generator(state: Mapping[str, Tensor], tower: VitTower) -> GalipGenerator:
    latent_dim = state["fc_code.weight"].shape[1]
    predictor = state["mapping.fc_prompt.weight"]
    text_dim = predictor.shape[1] - latent_dim
    if text_dim != tower.embed_dim:
        raise ConfigError(
            f"its text features are {text_dim} wide, those of {tower.model} {tower.embed_dim}: use "
            "the CLIP it was trained with"
        )
    blocks = _count(state, r"^GBlocks\.(\d+)\.")
    generator = GalipGenerator(
        resolution_px=OFFICIAL_RESOLUTION_PX,
        text_dim=text_dim,
        latent_dim=latent_dim,
        base_channels=state["to_rgb.1.weight"].shape[1],
        bridge_channels=state["mapping.conv_fuse.weight"].shape[1],
        bridge_blocks=_count(state, r"^mapping\.FBlocks\.(\d+)\."),
        prompt_tokens=predictor.shape[0] // tower.width,
        first_prompted_block=OFFICIAL_FIRST_PROMPTED_BLOCK,
        bridge_weight=OFFICIAL_BRIDGE_WEIGHT,
        vit_weight=OFFICIAL_VIT_WEIGHT,
        text_gain=1.0,
        text_norm="raw",
        vit_width=tower.width,
        vit_grid_side=tower.grid_side,
    )
    if len(generator.blocks) != blocks:
        raise ConfigError(
            f"it has {blocks} blocks, and {OFFICIAL_RESOLUTION_PX} px over a grid of "
            f"{tower.grid_side} patches take {len(generator.blocks)}; name a released file"
        )
    return generator.attach_tower(tower).eval()


def _build_discriminator(state: Mapping[str, Tensor], tower: VitTower) -> GalipDiscriminator:
    channels = state["netD.main.conv_r.0.weight"].shape[0]
    head = state["netC.joint_conv.0.weight"]
    return GalipDiscriminator(
        text_dim=head.shape[1] - channels,
        tapped_blocks=OFFICIAL_TAPPED_BLOCKS,
        channels=channels,
        head_channels=head.shape[0],
        text_gain=1.0,
        clip_input="official",
        vit_width=tower.width,
        vit_grid_side=tower.grid_side,
    ).eval()


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})


def _fill(
    path: Path, module: nn.Module, official: Mapping[str, Tensor], translate: Callable[[str], str]
) -> None:
    wanted = module.state_dict()
    translated = {translate(key): (key, value) for key, value in official.items()}
    for name, tensor in wanted.items():
        if name not in translated:
            raise ImportWeightsError(f"{path}: weight {name} (our name) is missing")
        key, value = translated[name]
        if value.shape != tensor.shape:
            raise ImportWeightsError(
                f"{path}: weight {key} is {tuple(value.shape)}, GALIP's is {tuple(tensor.shape)}: "
                "not a file of this network"
            )
    unknown = sorted(key for name, (key, _) in translated.items() if name not in wanted)
    if unknown:
        raise ImportWeightsError(f"{path}: weight {unknown[0]} belongs to another network")
    module.load_state_dict({name: translated[name][1].float() for name in wanted})
