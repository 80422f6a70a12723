"""Whatever people name in place of LAFITE's .pkl ends in one line that says what it is."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipgan.errors import ImportWeightsError
from clipgan.families.lafite.importer.names import list_discriminator_names, list_generator_names
from clipgan.families.lafite.importer.weights import load_lafite_weights
from tests.unit.interop import official_pickle as official
from tests.unit.interop.audit import recorded_events
from tests.unit.models.released_lafite import build_released_size

DATA = Path(__file__).parent / "data"
NUM_MUTATED = 1000


def official_bytes(protocol: int = 4) -> bytes:
    snapshot = official.build_snapshot(official.TINY, *official.tiny_shapes())
    snapshot["G"] = None
    return official.dump(snapshot, protocol)


def saved(tree: Any, *, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def zip_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


GALIP = {"model": {"netG": {"w": torch.zeros(1)}, "netD": {}, "netC": {}}, "epoch": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Google Drive</body></html>", "is a web page"),
        (b"\n\n  <html>", "is a web page"),
        (zip_of(), "is an empty zip"),
        (zip_of(network_pkl=b"x"), "is a zip file with network.pkl; unpack it"),
        (b"PK\x03\x04" + bytes(100), "is a damaged zip file"),
        (saved(GALIP, zipped=True), "weights of GALIP"),
        (saved(GALIP, zipped=False), "PyTorch checkpoint of before 1.6"),
        (saved({"linear1.weight": torch.zeros(1)}, zipped=True), "is a PyTorch checkpoint"),
        (b"\x93NUMPY\x01\x00", "is no pickle .it begins with 93 4e 55"),
        (pickle.dumps([1, 2]), "holds no network G_ema"),
        (pickle.dumps({"G_ema": None}), "holds no network G_ema"),
        (official_bytes()[:-1], "truncated or damaged near byte"),
        (official_bytes()[: len(official_bytes()) // 2], "truncated or damaged near byte"),
        (official_bytes()[:3], "truncated or damaged near byte"),
    ],
)
def test_other_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    with pytest.raises(ImportWeightsError, match=message) as caught:
        load_lafite_weights(path)
    assert_one_line(str(caught.value))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, what in (
        (tmp_path / "missing.pkl", "no such file"),
        (tmp_path, "is a folder, not a file"),
    ):
        with pytest.raises(ImportWeightsError, match=what):
            load_lafite_weights(path)


def test_networks_nested_without_end(tmp_path: Path) -> None:
    opening = (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}("
        b"\x8c\x04type\x8c\x05class\x8c\x07versionK\x06\x8c\x0aclass_name\x8c\x01x"
        b"\x8c\x05state}(\x8c\x08_modules}(\x8c\x01m"
    )
    nested = opening * 5000 + b"N" + b"uuu\x85R" * 5000
    path = tmp_path / "deep.pkl"
    path.write_bytes(b"\x80\x04}(\x8c\x05G_ema" + nested + b"u.")
    with pytest.raises(ImportWeightsError, match="nests layers more than"):
        load_lafite_weights(path)


def test_names_of_the_released_size() -> None:
    """The official key lists at 256 px: every name has a place, and the shapes fit."""
    texts = {name: (DATA / f"keys_lafite_{name}.json").read_text() for name in "GD"}
    trees = {name: json.loads(text) for name, text in texts.items()}
    generator, discriminator = build_released_size()
    cases = {
        "G": (list(list_generator_names(256, 8, 256)), generator.state_dict()),
        "D": (list(list_discriminator_names(256)), discriminator.state_dict()),
    }
    for network, (names, ours) in cases.items():
        shapes = {
            entry["name"]: tuple(entry["shape"])
            for entry in trees[network]["entries"]
            if not entry["name"].endswith("resample_filter")
        }
        assert {name.official for name in names} == set(shapes)
        assert {name.ours for name in names} == set(ours)
        for name in names:
            tensor = ours[name.ours] if name.row is None else ours[name.ours][name.row]
            assert tuple(tensor.shape) == shapes[name.official], name


ORIGINALS = (official_bytes(3), official_bytes(4))
SNIPPETS = (
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"cposix\nsystem\n(X\x0f\x00\x00\x00touch /executedtR",
    b"\x8c\x02os\x8c\x06system\x93",
    b"\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R",
    b"(ios\nsystem\n",
    b"\x82\x01",
    b"r\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x00",
    b"R",
    b"\x81",
    b"\x92",
    b"b",
    b"s",
    b"a",
    b"0",
    b"2",
    b"N",
    b"}",
    b"(",
    b"t",
    b".",
    b"\x85",
    b"\x86",
    b"\x87",
    b"h\x03",
    b"Q",
)
REPLACED = {
    b"_rebuild_tensor_v2": b"_rebuild_tensor_v9",
    b"_load_from_bytes": b"_load_from_bytez",
    b"EasyDict": b"os.fork_",
    b"torch._utils": b"os.system_xx",
    b"OrderedDict": b"attrgetter_",
    b"scalar": b"system",
    b"FloatStorage": b"DoubleStorag",
    b"G_ema": b"_init",
    b"version": b"Version",
    b"_modules": b"_buffers",
    b"\x06\x00\x00\x00weight": b"\x06\x00\x00\x00height",
}
POSITIONS = st.floats(0, 1, exclude_max=True)
MUTATIONS = st.one_of(
    st.tuples(st.just("byte"), POSITIONS, st.integers(0, 255)),
    st.tuples(st.just("delete"), POSITIONS, st.integers(1, 200)),
    st.tuples(st.just("repeat"), POSITIONS, st.integers(1, 200)),
    st.tuples(st.just("truncate"), POSITIONS, st.just(0)),
    st.tuples(st.just("insert"), POSITIONS, st.sampled_from(SNIPPETS)),
    st.tuples(st.just("replace"), POSITIONS, st.sampled_from(sorted(REPLACED))),
)


def mutate(data: bytes, kind: str, position: float, value: Any) -> bytes:
    place = int(position * len(data))
    before, after = data[:place], data[place:]
    match kind:
        case "byte":
            return before + bytes([value]) + after[1:]
        case "delete":
            return before + after[value:]
        case "repeat":
            return before + after[:value] + after
        case "truncate":
            return before
        case "insert":
            return before + value + after
        case "replace":
            # The first one behind the place, so that the rest stays official.
            return before + after.replace(value, REPLACED[value], 1)
    raise AssertionError(kind)


def assert_one_line(message: str) -> None:
    assert message.isprintable(), ascii(message)
    assert 10 < len(message) < 600


@pytest.fixture(scope="module")
def originals_load(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The unchanged files are good; torch has imported what it needs to build networks."""
    path = tmp_path_factory.mktemp("original") / "network.pkl"
    for data in ORIGINALS:
        path.write_bytes(data)
        assert load_lafite_weights(path).generator.resolution_px == 8


@settings(
    max_examples=NUM_MUTATED,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(original=st.sampled_from(ORIGINALS), mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_mutated_pickles_never_run_and_always_explain(
    original: bytes, mutations: list[tuple[str, float, Any]], tmp_path: Path, originals_load: None
) -> None:
    data = original
    for kind, position, value in mutations:
        data = mutate(data, kind, position, value)
    path = tmp_path / "mutated.pkl"
    path.write_bytes(data)
    with recorded_events() as events:
        try:
            networks = load_lafite_weights(path)
        except ImportWeightsError as error:
            assert_one_line(str(error))
        else:
            assert networks.generator.resolution_px == 8
    assert not events
    assert official.CANARY not in sys.modules
