"""Pickles are read as data: what asks for more is refused, and has not been run."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipgan.errors import ImportWeightsError
from clipgan.interop.inert_pickle import read_inert_pickle
from clipgan.interop.persistence import PersistentModule, read_persistence_pickle
from tests.unit.interop import official_pickle as official
from tests.unit.interop.audit import recorded_events


def read(data: bytes) -> Any:
    return read_persistence_pickle(io.BytesIO(data), len(data))


def read_tensor(tensor: torch.Tensor) -> torch.Tensor:
    found = read(official.dump({"x": tensor}))["x"]
    assert isinstance(found, torch.Tensor)
    return found


class Calls:
    """An object whose pickle is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


PLAIN = {
    "numbers": [0, 255, 256, 70_000, -1, 2**40, -(2**80), 1.5],
    "texts": ["", "a", "ä" * 300],
    "bytes": [b"", b"x" * 300],
    "rest": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1: {2: 3}}],
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_come_back(protocol: int) -> None:
    assert read_inert_pickle(io.BytesIO(pickle.dumps(PLAIN, protocol)), {}) == PLAIN


def test_sets_and_shared_values_come_back() -> None:
    shared = [1]
    tree = {"set": {1, 2, 3}, "a": shared, "b": shared}
    found: Any = read_inert_pickle(io.BytesIO(pickle.dumps(tree, 4)), {})
    assert found == tree
    assert found["a"] is found["b"]


@pytest.mark.parametrize("protocol", [3, 4])
def test_values_of_official_files_come_back(protocol: int) -> None:
    tree = {
        "easy": official.EasyDict(a=1),
        "ordered": OrderedDict(b=2),
        "empty": set(),
        "double": np.float64(0.1),
        "long": np.int64(-7),
        "true": np.bool_(True),
        "module": official.Network("Generator", {"x": 1}),
    }
    found = read(official.dump(tree, protocol))
    module = found.pop("module")
    assert isinstance(module, PersistentModule)
    assert (module.class_name, module.state) == ("Generator", {"x": 1})
    del tree["module"]
    assert found == tree


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.int64])
def test_tensors_come_back(dtype: torch.dtype) -> None:
    tensor = torch.arange(24).to(dtype).view(2, 3, 4)
    assert torch.equal(read_tensor(tensor), tensor)
    assert torch.equal(read_tensor(tensor[1:, ::2]), tensor[1:, ::2])
    assert torch.equal(read_tensor(tensor.permute(2, 0, 1)), tensor.permute(2, 0, 1))
    assert read_tensor(tensor[:0]).shape == (0, 3, 4)
    scalar = torch.tensor(3, dtype=dtype)
    assert torch.equal(read_tensor(scalar), scalar)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(os.system, "touch executed"), "posix.system"),
        (Calls(eval, "open('executed', 'w')"), "builtins.eval"),
        (Calls(builtins.__import__, "this"), "builtins.__import__"),
        (Calls(os.mkdir, "executed"), "posix.mkdir"),
        (Calls(torch.load, "executed"), "torch.serialization.load"),
    ],
)
def test_calls_are_refused_and_not_made(
    value: Calls, name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"G_ema": value}, protocol)
    with recorded_events() as events, pytest.raises(ImportWeightsError) as caught:
        read(data)
    assert not events
    assert not list(tmp_path.iterdir())
    if protocol > 1:
        names = {name, name.replace("builtins", "__builtin__")}
        assert any(spelled in str(caught.value) for spelled in names), caught.value
    assert "refused" in str(caught.value)


def test_code_in_the_bytes_of_a_tensor_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    inner = pickle.dumps(Calls(os.system, f"touch {target}"), 2)
    whole = official.dump({"x": torch.zeros(2)}, 4)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    start = whole.index(magic)
    (length,) = struct.unpack("<I", whole[start - 4 : start])
    forged = whole[: start - 4] + struct.pack("<I", len(inner)) + inner + whole[start + length :]
    # The frame's length no longer fits either; it is of no consequence to this reader.
    with recorded_events() as events, pytest.raises(ImportWeightsError, match=r"posix\.system"):
        read(forged)
    assert not events
    assert not target.exists()


def instructions(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


DICT_NAME = b"cdnnlib.util\nEasyDict\n"
TENSOR_NAME = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (instructions(b"(S'true'\nios\nsystem\n"), "refused|damaged"),
        (instructions(b"(ios\nsystem\n"), "instruction INST"),
        (instructions(b"(", DICT_NAME, b"o"), "instruction OBJ"),
        (instructions(b"\x82\x01"), "instruction EXT1"),
        (instructions(b"Pkey\n"), "instruction PERSID"),
        (instructions(b"K\x01Q"), "objects outside the file"),
        (instructions(b"]N)R"), "calls a NoneType|where a tuple belongs"),
        (instructions(b"])R"), "calls a list"),
        (instructions(DICT_NAME, b")R)R"), "calls a dict"),
        (instructions(DICT_NAME, b"}b"), "sets attributes of a _AllowedName"),
        (instructions(b"]}b"), "sets attributes of a list"),
        (instructions(b"\x8c\x06torch.\x8c\x04load\x93"), r"asks for torch\.\.load"),
        (instructions(b"\x8c\x05torch\x8c\x08_C.exec\n\x93"), "refused"),
        (instructions(b"coperator\nattrgetter\n"), r"operator\.attrgetter"),
        (instructions(b"cdnnlib.util\nEasyDict.__init__\n"), r"EasyDict\.__init__"),
        (instructions(b"ccollections\nOrderedDict.fromkeys\n"), "fromkeys"),
        (instructions(TENSOR_NAME, b"(K\x01K\x01K\x01K\x01K\x01tR"), "without a storage"),
        (b"", "damaged"),
        (b"\x80\x04", "damaged"),
        (instructions(b"h\x05"), "damaged"),
        (instructions(b"0"), "damaged"),
        (instructions(b"t"), "damaged"),
        (instructions(b"]K\x01a", b"(K\x01K\x02u"), "damaged"),
        (instructions(b"}", b"]K\x01s"), "list as a key"),
        (instructions(b"\xff"), "damaged"),
        (instructions(b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"N"), None),
        (instructions(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"x"), "damaged"),
        (instructions(b"B\xff\xff\xff\xffx"), "damaged"),
        # A memo as a list would take 32 GB for this index.
        (instructions(b"Nr\xff\xff\xff\xff"), None),
    ],
)
def test_crafted_pickles(data: bytes, message: str | None) -> None:
    with recorded_events() as events:
        if message is None:
            read(data)
        else:
            with pytest.raises(ImportWeightsError, match=message):
                read(data)
    assert not events


def test_nested_keys_do_not_overflow_the_stack() -> None:
    deep = b")" + b"\x85" * 200_000
    with pytest.raises(ImportWeightsError, match="tuple as a key"):
        read(instructions(b"}", deep, b"Ns"))
    read(instructions(deep))


def view_of_two_numbers(offset: int, size: int, stride: int) -> bytes:
    whole = official.dump({"x": torch.zeros(2)}, 4)
    before, after = b"K\x00K\x02\x85\x94K\x01\x85\x94", b"K%cK%c\x85\x94K%c\x85\x94"
    assert whole.count(before) == 1
    return whole.replace(before, after % (offset, size, stride))


@pytest.mark.parametrize(
    ("offset", "size", "stride"), [(0, 3, 1), (1, 2, 1), (0, 2, 2), (2, 1, 1), (0, 200, 0)]
)
def test_views_outside_of_their_storage_are_refused(offset: int, size: int, stride: int) -> None:
    with pytest.raises(ImportWeightsError, match="larger than its storage"):
        read(view_of_two_numbers(offset, size, stride))


def test_views_inside_are_not() -> None:
    assert read(view_of_two_numbers(1, 1, 1))["x"].shape == (1,)


def test_bytes_read_again_and_again_are_refused() -> None:
    typed = official.dump({"x": torch.zeros(1000)}, 4)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    start = typed.index(magic)
    (length,) = struct.unpack("<I", typed[start - 4 : start])
    blob = typed[start - 5 : start + length]  # BINBYTES, its length, the bytes
    again = b"ctorch.storage\n_load_from_bytes\nh\x00\x85R0"
    with pytest.raises(ImportWeightsError, match="more numbers than bytes"):
        read(instructions(blob, b"q\x000", again * 100, b"N"))
