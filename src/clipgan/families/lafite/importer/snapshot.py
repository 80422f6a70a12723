"""A LAFITE training snapshot (``network-snapshot-*.pkl``) -> its networks as plain tensors.

The file is a pickled dict with the networks ``G``, ``D`` and ``G_ema``; see
:mod:`clipgan.interop.persistence` for how it is read without running any of it.
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgan.artifacts import describe_non_file
from clipgan.errors import ImportWeightsError
from clipgan.interop.inert_pickle import describe
from clipgan.interop.persistence import (
    STORAGE_MAGIC,
    PersistentModule,
    read_persistence_pickle,
)

PICKLE_START = b"\x80"
MAX_DEPTH = 8
MAX_INDEX_BYTES = 64 * 2**20
_SNAPSHOT = re.compile(r"network-snapshot-(\d{6})$")
_SLOW_LAYER = re.compile(r"mapping\.fc\d+|.*\.(pre|scale_layer|bias_layer)_[01]")
_FILTER_TAPS = (1.0, 3.0, 3.0, 1.0)
_CLAMP = 256


@dataclass(frozen=True)
class OfficialNetwork:
    """Weights and buffers by their official names, and the constructor's arguments."""

    weights: dict[str, Tensor]
    settings: dict[str, Any]


@dataclass(frozen=True)
class LafiteSnapshot:
    """What is needed of a snapshot: the averaged generator and, if stored, the discriminator.

    Attributes:
        images_seen: from the file's name, 0 where that does not say.
    """

    generator: OfficialNetwork
    discriminator: OfficialNetwork | None
    images_seen: int


def read_lafite_pickle(path: Path) -> LafiteSnapshot:
    """Read a snapshot; nothing in it is executed.

    Raises:
        ImportWeightsError: no such file, another kind of file, truncated or damaged, asks for
            anything beyond the allow-list, or its networks are not LAFITE's.
    """
    if not path.is_file():
        raise ImportWeightsError(f"{path}: {describe_non_file(path)}; name LAFITE's .pkl")
    try:
        _refuse_other_formats(path)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            tree = read_persistence_pickle(content, len(content))
            num_bytes = len(content)
        generator, discriminator = _find_networks(tree, num_bytes)
    except ImportWeightsError as error:
        raise ImportWeightsError(f"{path}: {error}") from None
    named = _SNAPSHOT.match(path.stem)
    return LafiteSnapshot(generator, discriminator, int(named[1]) * 1000 if named else 0)


def _refuse_other_formats(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ImportWeightsError("is empty; get the file again")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ImportWeightsError(
            "is a web page, not weights: the download link showed a page; open it in a browser "
            "and save the file that it offers"
        )
    if head.startswith(b"PK"):
        raise ImportWeightsError(_describe_zip(path))
    if not head.startswith(PICKLE_START):
        raise ImportWeightsError(
            f"is no pickle (it begins with {head[:8].hex(' ')}); name LAFITE's .pkl"
        )


def _describe_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not names:
                return "is an empty zip; get the file again"
            index = next((name for name in names if name.endswith("data.pkl")), None)
            if index is None:
                return f"is a zip file with {describe(names[0])}; unpack it and name the .pkl"
            with archive.open(index) as file:
                content = file.read(MAX_INDEX_BYTES)
    # RuntimeError: an encrypted member; NotImplementedError: a compression that zipfile lacks.
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        return f"is a damaged zip file ({describe(error)}); get the file again"
    if b"netG" in content:
        return "holds weights of GALIP, not of LAFITE; name LAFITE's .pkl"
    return "is a PyTorch checkpoint, not LAFITE's .pkl; name that"


def _find_networks(tree: object, num_bytes: int) -> tuple[OfficialNetwork, OfficialNetwork | None]:
    if isinstance(tree, int) and tree == STORAGE_MAGIC:
        raise ImportWeightsError(
            "is a PyTorch checkpoint of before 1.6 (GALIP, or LAFITE's noise mapper); "
            "name LAFITE's .pkl"
        )
    if not isinstance(tree, dict) or not isinstance(tree.get("G_ema"), PersistentModule):
        raise ImportWeightsError("holds no network G_ema, so it is no snapshot of LAFITE")
    networks = {
        name: _extract_network(module, num_bytes)
        for name in ("G_ema", "D")
        if isinstance(module := tree.get(name), PersistentModule)
    }
    return networks["G_ema"], networks.get("D")


def _extract_network(root: PersistentModule, num_bytes: int) -> OfficialNetwork:
    weights = dict(_Walk(num_bytes).visit(root, ""))
    settings = root.state.get("_init_kwargs", {})
    unnamed = root.state.get("_init_args", ())
    if not isinstance(settings, dict) or not isinstance(unnamed, tuple) or unnamed:
        raise ImportWeightsError(f"a {describe(root.class_name)} made with unnamed arguments")
    return OfficialNetwork(weights, settings)


@dataclass
class _Walk:
    """Collects the tensors of a tree of modules and checks what their names do not show.

    Views of one storage may stand for many tensors: together they must not exceed ``bytes_left``.
    """

    bytes_left: int
    seen: set[int] = field(default_factory=set)

    def visit(self, module: PersistentModule, prefix: str) -> Iterator[tuple[str, Tensor]]:
        if prefix.count(".") > MAX_DEPTH:
            raise ImportWeightsError(f"nests layers more than {MAX_DEPTH} deep: made to harm")
        if id(module) in self.seen:
            raise ImportWeightsError("contains one layer in two places: damaged or made to harm")
        self.seen.add(id(module))
        _check_attributes(module, prefix)
        for kind in ("_parameters", "_buffers"):
            for name, tensor in self._items(module, kind):
                if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                    raise ImportWeightsError(f"{prefix}{name} is no tensor of numbers: damaged")
                if name == "resample_filter":
                    _check_filter(prefix, tensor)
                    continue
                self.bytes_left -= tensor.nbytes
                if self.bytes_left < 0:
                    raise ImportWeightsError("holds more numbers than bytes: made to harm")
                yield f"{prefix}{name}", tensor
        for name, child in self._items(module, "_modules"):
            if not isinstance(child, PersistentModule):
                raise ImportWeightsError(f"{prefix}{name} is no layer: damaged")
            yield from self.visit(child, f"{prefix}{name}.")

    def _items(self, module: PersistentModule, kind: str) -> Iterator[tuple[str, object]]:
        entries = module.state.get(kind, {})
        if not isinstance(entries, dict):
            raise ImportWeightsError(f"{kind} of {describe(module.class_name)} is no dict: damaged")
        for name, value in entries.items():
            if value is not None:
                yield describe(str(name)), value


def _check_attributes(module: PersistentModule, prefix: str) -> None:
    """Refuse layers that compute something else with the same weights."""
    activation = module.state.get("activation", "linear")
    if not isinstance(activation, str) or activation not in ("linear", "lrelu"):
        raise ImportWeightsError(
            f"{prefix}activation = {describe(str(activation))} is not LAFITE's"
        )
    clamp = module.state.get("conv_clamp")
    if not isinstance(clamp, int | float | None) or clamp not in (None, _CLAMP):
        raise ImportWeightsError(f"{prefix}conv_clamp is not {_CLAMP}, as in LAFITE")
    gain = module.state.get("bias_gain")
    if gain is not None:
        wanted = 0.01 if _SLOW_LAYER.fullmatch(prefix[:-1]) else 1.0
        if not isinstance(gain, int | float) or not abs(gain - wanted) <= 1e-6:
            raise ImportWeightsError(
                f"{prefix}bias_gain, the learning-rate multiplier, is not {wanted:g} as in LAFITE"
            )


def _check_filter(prefix: str, tensor: Tensor) -> None:
    taps = torch.tensor(_FILTER_TAPS)
    wanted = torch.outer(taps, taps) / taps.sum() ** 2
    if tensor.shape != wanted.shape or not torch.allclose(tensor.float(), wanted, atol=1e-6):
        raise ImportWeightsError(f"{prefix}resample_filter is not [1, 3, 3, 1], as in LAFITE")
