"""A project's folder is moved, copied or oddly named: its registry goes along."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from clipgan.errors import RegistryError
from clipgan.models.bundle import load_bundle
from clipgan.tracking.download import download_generator
from clipgan.tracking.local_store import find_stored_version
from clipgan.tracking.mlflow_store import (
    open_client,
    resolve_tracking_uri,
    sqlite_address,
    sqlite_path,
)
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.promotion import promote_version
from clipgan.tracking.registry import RegistrationReport
from clipgan.tracking.versions import STATE_TAG, list_versions
from tests.metric_values import value_of
from tests.mlflow_stores import register_values, save_tiny_bundle
from tests.params import params_with
from tests.unit.tracking.tiny_sampler import LOADER

CONFIG = params_with(
    {
        "register.model_name": "tiny",
        "register.gate_metric": "fd",
        "register.first_version": "always",
    }
).register_model
CHAMPION = "models:/tiny@champion"
ODD_NAMES = ["project", "what? why", "#1 grün 100%3F & 'more' @a:b"]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def make_project(root: Path, database: Path) -> str:
    """A project with one registered version; gives the address of its store."""
    (root / "mlruns").mkdir(parents=True)
    shutil.copyfile(database, root / "mlruns" / "mlflow.db")
    uri = resolve_tracking_uri(root, {})
    register(uri, save_tiny_bundle(root / "bundle"), 2.0)
    return uri


def register(uri: str, bundle: Path, fd: float) -> RegistrationReport:
    entries = {"fd": value_of("fd", fd)}
    return register_values(CONFIG, GeneratorPackage(bundle, LOADER), uri, entries)


def download(uri: str, target: Path, address: str = CHAMPION) -> bytes:
    bundle, _ = download_generator(address, tracking_uri=uri, target=target)
    load_bundle(bundle)
    return (bundle / "generator.safetensors").read_bytes()


def list_files(root: Path) -> list[tuple[str, int, bytes]]:
    return sorted(
        (str(path.relative_to(root)), path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    )


@pytest.mark.parametrize("name", [*ODD_NAMES, "a%20b", "a;b=c", "a{b}[c]", "back\\slash", "a??"])
def test_any_path_has_an_address(name: str) -> None:
    database = Path("/tmp") / name / "mlruns" / "mlflow.db"
    assert sqlite_path(sqlite_address(database)) == database


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_moved_project_keeps_its_registry(
    tmp_path: Path, migrated_database: Path, name: str
) -> None:
    make_project(tmp_path / "before", migrated_database)
    root = (tmp_path / "before").rename(tmp_path / name)
    uri = resolve_tracking_uri(root, {})
    weights = (root / "bundle" / "generator.safetensors").read_bytes()
    assert download(uri, tmp_path / "download") == weights
    report = register(uri, save_tiny_bundle(root / "next", 1), 1.0)
    assert (report.version, report.decision.promoted) == (2, True)
    assert promote_version("tiny", 1, reason="test", tracking_uri=uri).promoted
    rows = list_versions("tiny", tracking_uri=uri)
    assert [row.aliases for row in rows] == [("challenger",), ("champion",)]
    assert not (tmp_path / "before").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == [], "nothing in the working directory"
    assert {path.name for path in tmp_path.iterdir()} == {name, "download", "elsewhere"}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_copy_never_writes_into_the_original(
    tmp_path: Path, migrated_database: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = make_project(tmp_path / name, migrated_database)
    before = list_files(tmp_path / name)
    copy = Path(shutil.copytree(tmp_path / name, tmp_path / "copy"))
    copied_uri = resolve_tracking_uri(copy, {})
    open_client(copied_uri)
    moves = [line for line in capsys.readouterr().out.splitlines() if "moved or copied" in line]
    assert moves == [f"{copy}/mlruns: was moved or copied from {tmp_path / name}/mlruns"]
    assert str(tmp_path / name).encode() not in (copy / "mlruns" / "mlflow.db").read_bytes()
    shutil.rmtree(copy / "mlruns" / "artifacts")
    assert not register(copied_uri, copy / "bundle", 2.0).created
    register(copied_uri, save_tiny_bundle(copy / "next", 1), 1.0)
    assert len(list_versions("tiny", tracking_uri=copied_uri)) == 2
    assert list_files(tmp_path / name) == before
    assert len(list_versions("tiny", tracking_uri=uri)) == 1
    assert "moved or copied" not in capsys.readouterr().out, "said once"


def test_artifacts_that_somebody_keeps_elsewhere_stay_there(
    tmp_path: Path, migrated_database: Path
) -> None:
    client = open_client(make_project(tmp_path / "before", migrated_database))
    theirs = (tmp_path / "theirs" / "artifacts").as_uri()
    client.create_experiment("theirs", theirs)
    root = (tmp_path / "before").rename(tmp_path / "after")
    client = open_client(resolve_tracking_uri(root, {}))
    assert client.get_experiment_by_name("theirs").artifact_location == theirs
    ours = client.get_experiment_by_name("tiny").artifact_location
    assert ours == (root / "mlruns" / "artifacts").as_uri()


def test_lost_files_are_logged_again_under_the_same_version(
    tmp_path: Path, migrated_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "project"
    uri = make_project(root, migrated_database)
    weights = download(uri, tmp_path / "first")
    shutil.rmtree(root / "mlruns" / "artifacts")
    with pytest.raises(RegistryError, match="the files of models:/tiny@champion are gone: regist"):
        download(uri, tmp_path / "none")
    report = register(uri, root / "bundle", 2.0)
    assert (report.version, report.created) == (1, False)
    assert "the files of version 1 were gone: logged again" in capsys.readouterr().out
    assert download(uri, tmp_path / "second") == weights
    found = find_stored_version(root / "mlruns" / "mlflow.db", "tiny", STATE_TAG, "state")
    assert found is not None
    assert found.location is not None
    (found.location / "artifacts" / "generator" / "generator.safetensors").unlink()
    register(uri, root / "bundle", 2.0)
    assert download(uri, tmp_path / "third") == weights


def test_a_model_that_was_deleted_in_mlflow_becomes_a_new_version(
    tmp_path: Path, migrated_database: Path
) -> None:
    root = tmp_path / "project"
    uri = make_project(root, migrated_database)
    client = open_client(uri)
    source = client.get_model_version("tiny", "1").source
    client.delete_logged_model(source.removeprefix("models:/"))
    shutil.rmtree(root / "mlruns" / "artifacts")
    report = register(uri, root / "bundle", 2.0)
    assert (report.version, report.created) == (2, True)
    assert download(uri, tmp_path / "download", "models:/tiny@challenger")


def test_a_version_that_was_deleted_is_registered_again(
    tmp_path: Path, migrated_database: Path
) -> None:
    root = tmp_path / "project"
    uri = make_project(root, migrated_database)
    open_client(uri).delete_model_version("tiny", "1")
    report = register(uri, root / "bundle", 2.0)
    assert (report.created, report.decision.promoted) == (True, True)
    assert download(uri, tmp_path / "download")
