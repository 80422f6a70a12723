"""The names that pickles of NVIDIA-style networks contain, answered with inert values.

Such a network is pickled as the Python source of its class with the attributes of its instance
("persistence"). Only the attributes are kept; the source is dropped unread. Tensors hold bytes that
are themselves a series of pickles in torch's old storage format, read by the same machine.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipgan.errors import ImportWeightsError
from clipgan.interop.inert_pickle import (
    Constructors,
    ReadableFile,
    RestoresState,
    read_inert_pickle,
)

PERSISTENCE_VERSION = 6
STORAGE_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of torch's files from before its zip format, and of every tensor's bytes here."""
_STORAGE_VERSION = 1001
_STORAGE_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.BoolStorage": torch.bool,
}
_NUMBER_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "b1": "?"}
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, eq=False, slots=True)
class PersistentModule:
    """A pickled network or layer: the name of its class and its attributes."""

    class_name: str
    state: dict[str, Any]


class NumberFormat(RestoresState):
    """A numpy dtype of single numbers; its state repeats its name and the byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code not in _NUMBER_CODES:
            raise TypeError("a numpy dtype other than of single numbers")
        self.format = struct.Struct("<" + _NUMBER_CODES[code])


def read_persistence_pickle(file: ReadableFile, num_bytes: int) -> object:
    """Read a pickle of dicts, numbers and persistent modules.

    Args:
        num_bytes: size of the file; its tensors may hold no more, so that a small file cannot
            fill the memory.

    Raises:
        ImportWeightsError: see :func:`read_inert_pickle`.
    """
    return read_inert_pickle(file, _build_constructors(_StorageReader(num_bytes)))


class _StorageReader:
    """Reads the bytes of tensors, up to a total size."""

    def __init__(self, num_bytes: int) -> None:
        self.bytes_left = num_bytes

    def read(self, data: object) -> Tensor:
        """Bytes of a storage -> its numbers, one-dimensional."""
        if not isinstance(data, bytes):
            raise TypeError("a storage without bytes")
        self.bytes_left -= len(data)
        if self.bytes_left < 0:
            raise ImportWeightsError("holds more numbers than bytes: damaged or made to harm")
        file = io.BytesIO(data)
        if [read_inert_pickle(file, {}) for _ in range(2)] != [STORAGE_MAGIC, _STORAGE_VERSION]:
            raise ValueError("no storage format of torch")
        system = read_inert_pickle(file, {})
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("a storage of big-endian numbers")
        names: Constructors = {name: lambda: None for name in _STORAGE_DTYPES}
        storage = read_inert_pickle(file, names, load_persistent=_read_storage_id)
        if not isinstance(storage, _StorageId) or read_inert_pickle(file, {}) != [storage.key]:
            raise ValueError("no single storage")
        return _read_numbers(file, storage)


@dataclass(frozen=True, slots=True)
class _StorageId:
    key: str
    dtype: torch.dtype
    num_elements: int


def _read_storage_id(identifier: object) -> _StorageId:
    # ("storage", class, key, device, number of elements[, no view])
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
        raise TypeError("no storage")
    kind, storage_class, key, _, num_elements, *view = identifier
    dtype = _STORAGE_DTYPES.get(getattr(storage_class, "name", ""))
    if kind != "storage" or dtype is None or not isinstance(key, str) or view not in ([], [None]):
        raise TypeError("no storage")
    if type(num_elements) is not int:
        raise TypeError("no storage size")
    return _StorageId(key, dtype, num_elements)


def _read_numbers(file: io.BytesIO, storage: _StorageId) -> Tensor:
    head, numbers = file.read(8), file.read()
    stated = int.from_bytes(head, "little", signed=True)
    wanted = storage.num_elements * storage.dtype.itemsize
    if len(head) != 8 or stated != storage.num_elements or len(numbers) != wanted:
        raise ValueError("a storage of another size than it says")
    if not numbers:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(numbers), dtype=storage.dtype)


def _build_constructors(storages: _StorageReader) -> Constructors:
    """Every name of the files that LAFITE's code writes; anything else is refused."""
    return {
        "torch_utils.persistence._reconstruct_persistent_obj": _build_module,
        "dnnlib.util.EasyDict": lambda: {},
        "collections.OrderedDict": lambda: {},
        "torch._utils._rebuild_parameter": _unwrap_parameter,
        "torch._utils._rebuild_tensor_v2": _build_tensor,
        "torch.storage._load_from_bytes": storages.read,
        "numpy.core.multiarray.scalar": _decode_number,
        "numpy._core.multiarray.scalar": _decode_number,
        "numpy.dtype": NumberFormat,
        "builtins.set": _build_set,
    }


def _build_module(meta: object) -> PersistentModule:
    if not isinstance(meta, dict) or not _equals(meta.get("type"), "class"):
        raise TypeError("no persistent class")
    if not _equals(meta.get("version"), PERSISTENCE_VERSION):
        raise ImportWeightsError(
            f"its networks are not in persistence format {PERSISTENCE_VERSION}, LAFITE's: "
            "it comes from other code"
        )
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise TypeError("a persistent class without a state")
    return PersistentModule(name, state)


def _equals(value: object, wanted: object) -> bool:
    # Tensors answer == with a tensor.
    return type(value) is type(wanted) and value == wanted


def _build_set(values: object) -> set[Any]:
    # Python 3.7 writes a set as a call with the list of its members; those of a module are empty.
    if not _equals(values, []):
        raise TypeError("a set that is not empty")
    return set()


def _unwrap_parameter(tensor: object, *_: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError("a parameter without a tensor")
    return tensor


def _build_tensor(storage: object, offset: object, size: object, stride: object, *_: Any) -> Tensor:
    """A view of the storage; checked here, for a view outside of it would read foreign memory."""
    if not isinstance(storage, Tensor) or storage.ndim != 1:
        raise TypeError("a tensor without a storage")
    size, stride = _expect_sizes(size), _expect_sizes(stride)
    (start,) = _expect_sizes((offset,))
    if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
        raise ValueError("a tensor whose size and strides differ in length")
    last = start + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage) or (0 not in size and last >= len(storage)):
        raise ValueError("a tensor larger than its storage")
    return torch.as_strided(storage, size, stride, start)


def _expect_sizes(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple):
        raise TypeError("a size that is no tuple")
    for value in values:
        if type(value) is not int or not 0 <= value < 2**40:
            raise ValueError("a size that is no number from 0")
    return values


def _decode_number(kind: object, data: object) -> object:
    if not isinstance(kind, NumberFormat) or not isinstance(data, bytes):
        raise TypeError("no numpy number")
    if len(data) != kind.format.size:
        raise ValueError("a numpy number of another size than its type")
    return kind.format.unpack(data)[0]
