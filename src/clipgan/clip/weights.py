"""Loading of any open_clip model with a pretrained tag or a local weights file.

OpenAI's models were trained with QuickGELU (x * sigmoid(1.702 x)), while open_clip's plain names
build GELU. The right one is chosen here by the weights, never by the model's name.
"""

from __future__ import annotations

import difflib
import json
import pickle
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from clipgan.artifacts import hash_file
from clipgan.clip.builtin import BUILTIN_MODEL, quiet_open_clip
from clipgan.errors import ClipError

OPENAI_KEYS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Entries besides the weights that only OpenAI's files have."""


@dataclass(frozen=True)
class LoadedClip:
    """An open_clip model (float32, on the CPU), its tokenizer, and the hash of its weights file."""

    clip: nn.Module
    tokenizer: Any
    weights_sha256: str


def list_known_models() -> list[str]:
    """List the built-in model and every name that open_clip knows."""
    return [BUILTIN_MODEL, *(name for name in open_clip.list_models() if name != BUILTIN_MODEL)]


def load_open_clip(model: str, weights: str) -> LoadedClip:
    """Load ``model`` with a pretrained tag or a local file.

    Raises:
        ClipError: see :func:`clipgan.clip.encoder.load_clip`.
    """
    if model not in open_clip.list_models():
        close = difflib.get_close_matches(model, list_known_models(), n=3, cutoff=0.4)
        raise ClipError(
            f"features.clip_model = {model!r} is unknown; close names: "
            f"{', '.join(close) or 'none'} (open_clip.list_models() shows all)"
        )
    if open_clip.is_pretrained_cfg(model, weights):
        return _load_tag(model, weights)
    path = Path(weights)
    if path.is_file():
        return _load_file(model, path)
    tags = open_clip.list_pretrained_tags_by_model(model)
    raise ClipError(
        f"features.clip_weights = {weights!r}: neither a file nor a pretrained tag of {model}; "
        f"its tags: {', '.join(tags) or 'none'}"
    )


def find_tag_file(model: str, tag: str) -> Path:
    """Find the weights file of an open_clip pretrained tag; it is downloaded if it is not cached.

    Raises:
        ClipError: the model has no such tag, or its weights cannot be downloaded.
    """
    if not open_clip.is_pretrained_cfg(model, tag):
        raise ClipError(
            f"features.clip_weights = {tag!r}: neither a file nor a pretrained tag of {model}"
        )
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, tag)))
    except (OSError, RuntimeError, ValueError) as error:
        raise ClipError(
            f"features.clip_weights = {tag!r}: the weights of {model} cannot be downloaded "
            f"({_first_line(error)}); set clip_weights to a local weights file instead"
        ) from error


def _load_tag(model: str, tag: str) -> LoadedClip:
    settings = open_clip.get_pretrained_cfg(model, tag)
    path = find_tag_file(model, tag)
    quick_gelu = bool(settings.get("quick_gelu", False))
    return _create(model, path, quick_gelu=quick_gelu, preprocessing=_read_preprocessing(settings))


def _load_file(model: str, path: Path) -> LoadedClip:
    described = _read_description_beside(path)
    preprocessing = described.preprocessing or _find_agreed_preprocessing(model)
    state = _read_openai_state(path)
    if state is None:
        quick_gelu = described.quick_gelu
        return _create(model, path, quick_gelu=quick_gelu, preprocessing=preprocessing)
    with quiet_open_clip():
        clip = open_clip.create_model(
            model, quick_gelu=True, force_preprocess_cfg=preprocessing, pretrained_text=False
        )
    try:
        clip.load_state_dict(state)
    except RuntimeError as error:
        raise _does_not_fit(model, path, error) from None
    return LoadedClip(clip, open_clip.get_tokenizer(model), hash_file(path))


def _create(
    model: str, path: Path, *, quick_gelu: bool | None, preprocessing: dict[str, Any]
) -> LoadedClip:
    changes = {} if quick_gelu is None else {"quick_gelu": quick_gelu}
    try:
        with quiet_open_clip():
            clip = open_clip.create_model(
                model, str(path), force_preprocess_cfg=preprocessing, weights_only=True, **changes
            )
        tokenizer = open_clip.get_tokenizer(model)
    except (pickle.UnpicklingError, SafetensorError, EOFError) as error:
        raise ClipError(f"{path}: damaged or unsafe weights file ({_first_line(error)})") from None
    except (RuntimeError, KeyError, AttributeError, TypeError, StopIteration) as error:
        raise _does_not_fit(model, path, error) from None
    except OSError as error:
        raise ClipError(
            f"features.clip_model = {model!r}: files of its text tower are missing "
            f"({_first_line(error)})"
        ) from error
    return LoadedClip(clip, tokenizer, hash_file(path))


@dataclass(frozen=True)
class _Description:
    quick_gelu: bool | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)


def _read_description_beside(path: Path) -> _Description:
    """Read ``open_clip_config.json``, which folders of the hub have beside the weights."""
    described = path.parent / "open_clip_config.json"
    if not described.is_file():
        return _Description()
    try:
        tree = json.loads(described.read_text(encoding="utf-8"))
        return _Description(
            bool(tree["model_cfg"].get("quick_gelu", False)),
            _read_preprocessing(tree.get("preprocess_cfg", {})),
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ClipError(f"{described}: damaged ({_first_line(error)})") from None


def _read_openai_state(path: Path) -> dict[str, Tensor] | None:
    """Read one of OpenAI's files (TorchScript or plain state dict); None: it is another file."""
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            is_script = any(Path(name).name == "constants.pkl" for name in archive.namelist())
        if is_script:
            state = _read_torchscript(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError) as error:
        raise ClipError(f"{path}: damaged or unsafe weights file ({_first_line(error)})") from None
    if not isinstance(state, dict) or not set(state) >= OPENAI_KEYS:
        return None
    return {key: value.float() for key, value in state.items() if key not in OPENAI_KEYS}


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # torch warns of TorchScript, which OpenAI's files are made of.
        warnings.simplefilter("ignore", FutureWarning)
        script: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    state: dict[str, Tensor] = script.state_dict()
    return state


def _find_agreed_preprocessing(model: str) -> dict[str, Any]:
    """Find the mean and deviation that all pretrained weights of an architecture share, if any."""
    known = [
        _read_preprocessing(open_clip.get_pretrained_cfg(model, tag))
        for tag in open_clip.list_pretrained_tags_by_model(model)
    ]
    return known[0] if known and all(one == known[0] for one in known) else {}


def _read_preprocessing(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("mean", "std") if settings.get(key) is not None}


def _does_not_fit(model: str, path: Path, error: Exception) -> ClipError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = (lines[1] if len(lines) > 1 else lines[0]) if lines else type(error).__name__
    return ClipError(
        f"{path}: these are not the weights of {model} ({detail[:160]}); set features.clip_model "
        "to the model they belong to"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
