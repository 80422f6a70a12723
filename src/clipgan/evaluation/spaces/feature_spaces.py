"""Feature spaces by name: which network extracts features, at what size, with which weights.

::

    efficientnet-lite0         comes with a package; no generator is trained against it
    inception-tf               FID's network; values are called fid, kid, precision, ...
    inception-clean            the same network behind clean-fid's resize
    inception-torchvision      ImageNet weights and GALIP's input range
    training-clip              the CLIP of the training, which is never independent
    open_clip:MODEL:WEIGHTS    any CLIP; WEIGHTS is a pretrained tag or a file
    timm:NAME[:FILE]           any network of timm, such as DINOv2; FILE, or in the hub's cache

A space whose weights are not on this machine is skipped with one line that says how to get them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from clipgan.artifacts import hash_file
from clipgan.errors import ClipError, EvaluationError
from clipgan.evaluation.spaces.extractors import (
    EXTRACTOR_LAYER,
    EXTRACTOR_NAME,
    EXTRACTOR_RESIZE,
    EfficientNetLite0Extractor,
)
from clipgan.evaluation.spaces.inception import (
    CPU_BATCH,
    SIDE_PX,
    TENSORFLOW_URL,
    TORCHVISION_URL,
    TensorFlowInception,
    TorchvisionInception,
    WeightsFile,
    find_hub_weights,
)
from clipgan.images import normalize, resize, to_unit_range

TRAINING_CLIP = "training-clip"
_UNREADABLE = (
    *(RuntimeError, KeyError, OSError, ValueError, EOFError),
    *(SafetensorError, pickle.UnpicklingError),
)

Encode = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""(N, 3, H, W) uint8 on the device -> features (N, D), and class logits where there are some."""


@dataclass(frozen=True)
class FeatureSpace:
    """One network on one device.

    Attributes:
        spec: its name in params.yaml.
        slug: its name in the names of metrics; empty for ``inception-tf``.
        extractor: network and layer, as protocols name them.
        resize: how images reach the network's size.
        encode_float: as ``encode``, for images (N, 3, H, W) in [-1, 1]; path lengths need it. None:
            the network takes uint8 images only.
        is_clip: whether features are compared by direction, and CMMD is measured.
        batch_size: the largest batch on the CPU.
        clip: fingerprint of the CLIP; None: the network is no CLIP.
    """

    spec: str
    slug: str
    extractor: str
    weights_sha256: str
    resize: str
    encode: Encode
    encode_float: Callable[[Tensor], Tensor] | None = None
    is_clip: bool = False
    batch_size: int = 64
    clip: Mapping[str, str] | None = None

    def name_metric(self, kind: str) -> str:
        """``fd`` -> ``fid`` or ``fd_dinov2``; ``kid`` -> ``kid`` or ``kid_dinov2``."""
        if kind == "fd" or kind.startswith("fd_"):
            return _name_distance(self.slug) + kind.removeprefix("fd")
        return f"{kind}_{self.slug}" if self.slug else kind


@dataclass(frozen=True)
class TrainingClip:
    """The CLIP that a generator was trained against; it encodes images as unit vectors."""

    encode_images: Callable[[Tensor], Tensor]
    fingerprint: Mapping[str, str]


def find_space(
    spec: str, device: torch.device, training_clip: TrainingClip | None
) -> FeatureSpace | str:
    """Load the space of that name, or return one line that says why it is not available here.

    Raises:
        EvaluationError: the name is unknown, or a weights file is damaged.
    """
    kind, _, rest = spec.partition(":")
    if spec in _INCEPTIONS:
        url, build = _INCEPTIONS[spec]
        weights = find_hub_weights(url)
        return weights if isinstance(weights, str) else build(weights, device)
    if spec == EXTRACTOR_NAME:
        return _build_lite(device)
    if spec == TRAINING_CLIP:
        if training_clip is None:
            return "there is no training CLIP: images, not a generator, are evaluated"
        return describe_clip(TRAINING_CLIP, "clip", training_clip)
    if kind == "open_clip" and rest.count(":") >= 1:
        return _find_open_clip(spec, device)
    if kind == "timm" and rest:
        return _find_timm(spec, rest, device)
    raise EvaluationError(
        f"feature space {spec!r} is unknown: use {EXTRACTOR_NAME}, {', '.join(_INCEPTIONS)}, "
        f"{TRAINING_CLIP}, open_clip:MODEL:WEIGHTS or timm:NAME"
    )


def name_metric_of(spec: str) -> str:
    """Name the Frechet distance of a space, whether or not the space is on this machine."""
    return _name_distance({"inception-tf": "", "inception-clean": "clean"}.get(spec, slug_of(spec)))


def _name_distance(slug: str) -> str:
    """FID is the name of the Frechet distance in the space of TensorFlow's Inception alone."""
    return {"": "fid", "clean": "fid_clean"}.get(slug, f"fd_{slug}")


def _build_lite(device: torch.device) -> FeatureSpace:
    extractor = EfficientNetLite0Extractor().to(device)
    return FeatureSpace(
        spec=EXTRACTOR_NAME,
        slug="efficientnet_lite0",
        extractor=f"{EXTRACTOR_NAME}/{EXTRACTOR_LAYER}",
        weights_sha256=extractor.network.weights_sha256,
        resize=EXTRACTOR_RESIZE,
        encode=lambda images: (extractor(images), None),
        encode_float=extractor.encode_float,
    )


def _build_tensorflow(weights: WeightsFile, device: torch.device) -> FeatureSpace:
    network = TensorFlowInception(weights.path).to(device)
    return FeatureSpace(
        spec="inception-tf",
        slug="",
        extractor="inception-v3-compat/2048",
        weights_sha256=weights.sha256,
        resize="TensorFlow 1.x bilinear, to 299 px",
        encode=network,
        batch_size=CPU_BATCH,
    )


def _build_clean(weights: WeightsFile, device: torch.device) -> FeatureSpace:
    network = TensorFlowInception(weights.path).to(device)

    def encode(images_uint8: Tensor) -> tuple[Tensor, Tensor | None]:
        pixels = resize_as_clean_fid(images_uint8.cpu()).to(device)
        return network.encode_pixels(pixels)[0], None

    return FeatureSpace(
        spec="inception-clean",
        slug="clean",
        extractor="inception-v3-compat/2048",
        weights_sha256=weights.sha256,
        resize="PIL bicubic with antialias in float32, to 299 px (clean-fid)",
        encode=encode,
        batch_size=CPU_BATCH,
    )


def _build_torchvision(weights: WeightsFile, device: torch.device) -> FeatureSpace:
    network = TorchvisionInception(weights.path).to(device)
    return FeatureSpace(
        spec="inception-torchvision",
        slug="inception_torchvision",
        extractor="torchvision inception_v3 IMAGENET1K_V1/2048",
        weights_sha256=weights.sha256,
        resize="bilinear with aligned corners, to 299 px; [0, 1] read as ImageNet-normalised",
        encode=lambda images: (network(images), None),
        batch_size=CPU_BATCH,
    )


_INCEPTIONS: dict[str, tuple[str, Callable[[WeightsFile, torch.device], FeatureSpace]]] = {
    "inception-tf": (TENSORFLOW_URL, _build_tensorflow),
    "inception-clean": (TENSORFLOW_URL, _build_clean),
    "inception-torchvision": (TORCHVISION_URL, _build_torchvision),
}


def resize_as_clean_fid(images_uint8: Tensor) -> Tensor:
    """Resize as PIL does: bicubic with antialias, each channel in float32 (Parmar et al. 2022).

    Args:
        images_uint8: (N, 3, H, W) uint8 on the CPU.

    Returns:
        (N, 3, 299, 299) float32 in 0..255, not rounded.
    """
    size = (SIDE_PX, SIDE_PX)
    channels = images_uint8.flatten(0, 1).numpy().astype(np.float32)
    resized = [
        np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC))
        for channel in channels
    ]
    return torch.from_numpy(np.stack(resized)).clamp(0, 255).view(-1, 3, *size)


def _find_open_clip(spec: str, device: torch.device) -> FeatureSpace | str:
    from clipgan.clip.encoder import load_clip

    _, model, weights = spec.split(":", 2)
    try:
        clip = load_clip(model, weights, precision="fp32", device=device)
    except ClipError as error:
        return str(error)
    return describe_clip(spec, slug_of(spec), TrainingClip(clip.encode_images, clip.fingerprint))


def describe_clip(spec: str, slug: str, clip: TrainingClip) -> FeatureSpace:
    """Describe a CLIP's image tower as a feature space."""
    fingerprint = clip.fingerprint
    return FeatureSpace(
        spec=spec,
        slug=slug,
        extractor=f"CLIP {fingerprint.get('model', '')}".rstrip(),
        weights_sha256=fingerprint.get("weights_sha256", ""),
        resize=f"the CLIP's own ({fingerprint.get('preprocessing', 'unknown')})",
        encode=lambda images: (clip.encode_images(to_unit_range(images)), None),
        encode_float=clip.encode_images,
        is_clip=True,
        clip=dict(fingerprint),
    )


def _find_timm(spec: str, rest: str, device: torch.device) -> FeatureSpace | str:
    import timm
    from timm.data import resolve_model_data_config

    name, _, file = rest.partition(":")
    if not timm.is_model(name):
        raise EvaluationError(f"feature space {spec!r}: timm has no model {name!r}")
    path = Path(file) if file else _find_cached_weights(timm.get_pretrained_cfg(name))
    if path is None or not path.is_file():
        where = path or "in the hub's cache"
        return f"weights of timm {name} are not {where}: give a file as timm:{name}:FILE"
    try:
        network: Any = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, num_classes=0
        )
    except _UNREADABLE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EvaluationError(f"{path}: no weights of timm {name} ({reason[:160]})") from None
    network = network.to(device).eval().requires_grad_(False)
    data = resolve_model_data_config(network)
    side = int(data["input_size"][-1])

    def encode(images_uint8: Tensor) -> tuple[Tensor, Tensor | None]:
        pixels = resize(to_unit_range(images_uint8), side)
        return network(normalize(pixels, data["mean"], data["std"])), None

    return FeatureSpace(
        spec=spec,
        slug=slug_of(spec),
        extractor=f"timm {name}/pooled",
        weights_sha256=hash_file(path),
        resize=f"bicubic, antialias, to {side} px",
        encode=encode,
        batch_size=CPU_BATCH,
    )


def _find_cached_weights(config: Any) -> Path | None:
    """Find the weights file of a timm model in the hub's cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    hub_id = getattr(config, "hf_hub_id", None)
    if not hub_id:
        return None
    for file in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(hub_id, file)
        if isinstance(path, str):
            return Path(path)
    return None


def slug_of(spec: str) -> str:
    """Write a space's name in the letters, digits and underscores that metric names may hold.

    The name includes the weights: their tag, or the stem of their file.
    """
    kind, _, rest = spec.partition(":")
    name = spec
    if kind in {"open_clip", "timm"}:
        network, _, weights = rest.partition(":")
        name = f"{network}_{Path(weights).stem}" if weights else network
    prefix = "clip_" if kind == "open_clip" else ""
    return prefix + "".join(c if c.isalnum() else "_" for c in name.lower())


def check_names_differ(specs: Sequence[str]) -> None:
    """Refuse two spaces whose metrics would have the same name.

    Raises:
        EvaluationError: names both.
    """
    known: dict[str, str] = {}
    for spec in specs:
        other = known.setdefault(name_metric_of(spec), spec)
        if other != spec:
            raise EvaluationError(
                f"feature spaces {other!r} and {spec!r} would both be called "
                f"{name_metric_of(spec)}: give one weights file another name"
            )
