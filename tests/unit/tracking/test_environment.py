"""The store's address and the environment MLflow runs in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipgan.artifacts import hash_file
from clipgan.errors import RegistryError
from clipgan.tracking.mlflow_store import (
    MLFLOW_ENVIRONMENT,
    ensure_experiment,
    load_mlflow,
    open_client,
    resolve_tracking_uri,
)
from clipgan.tracking.provenance import (
    COMMIT_TAG,
    DIRTY_TAG,
    collect_run_tags,
    describe_process,
    is_process_dead,
    read_data_digest,
    read_git_state,
)


def test_the_store_is_absolute_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"sqlite:///{tmp_path.resolve()}/mlruns/mlflow.db"
    assert resolve_tracking_uri(Path(), {}) == expected
    assert resolve_tracking_uri(tmp_path / "temporary", {"DVC_ROOT": str(tmp_path)}) == expected
    given = {"MLFLOW_TRACKING_URI": "http://localhost:5000", "DVC_ROOT": "/x"}
    assert resolve_tracking_uri(tmp_path, given) == "http://localhost:5000"


def test_mlflow_is_loaded_with_telemetry_and_pickle_off(tracking_uri: str) -> None:
    load_mlflow()
    assert {name: os.environ[name] for name in MLFLOW_ENVIRONMENT} == dict(MLFLOW_ENVIRONMENT)
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get() is False
    assert is_telemetry_disabled()


def test_two_processes_that_meet_a_new_store_both_get_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    code = (
        "import sys; from clipgan.tracking.mlflow_store import *; "
        "print(ensure_experiment(open_client(sys.argv[1]), sys.argv[1], 'shared'))"
    )
    command = [sys.executable, "-c", code, uri]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    try:
        answers = [process.communicate(timeout=240) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert "alembic" not in answers[0][1] + answers[1][1]


@pytest.mark.parametrize("uri", ["ftp://nowhere", "./mlruns"])
def test_a_store_of_another_kind_is_refused_in_one_line(uri: str, tracking_uri: str) -> None:
    with pytest.raises(RegistryError) as caught:
        open_client(uri)
    assert str(caught.value).startswith(f"the MLflow store {uri} cannot be used: ")
    assert "\n" not in str(caught.value)


def test_a_damaged_database_is_named(tracking_uri: str, tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"no database" * 500)
    with pytest.raises(RegistryError, match=r"junk\.db cannot be used: .*not a database"):
        open_client(f"sqlite:///{tmp_path}/junk.db")


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path, tracking_uri: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="not writable"):
        open_client(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_deleted_experiment_is_named_with_its_fix(tracking_uri: str) -> None:
    client = open_client(tracking_uri)
    experiment_id = ensure_experiment(client, tracking_uri, "gone")
    assert ensure_experiment(client, tracking_uri, "gone") == experiment_id
    client.delete_experiment(experiment_id)
    with pytest.raises(RegistryError, match=f"restore --experiment-id {experiment_id}"):
        ensure_experiment(client, tracking_uri, "gone")


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def test_git_state_follows_the_repository(tmp_path: Path) -> None:
    assert read_git_state(tmp_path) == {}
    git(tmp_path, "init")
    assert read_git_state(tmp_path) == {}, "no commit yet"
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    clean = read_git_state(tmp_path)
    assert clean[DIRTY_TAG] == "false"
    assert len(clean[COMMIT_TAG]) == 40
    (tmp_path / "untracked").write_text("")
    assert read_git_state(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert read_git_state(tmp_path) == {**clean, DIRTY_TAG: "true"}


def test_data_is_known_by_its_fingerprint_or_its_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"fingerprint": "abc", "num_images": 3}')
    assert read_data_digest(tmp_path) == "abc"
    manifest.write_text('{"num_images": 3}')
    assert read_data_digest(tmp_path) == hash_file(manifest)


def test_no_git_gives_no_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    environment = {"DVC_STAGE": "train", "DVC_EXP_NAME": "", "PREFECT__FLOW_RUN_ID": "abc"}
    assert collect_run_tags(tmp_path, environment) == {
        "clipgan.dvc_stage": "train",
        "clipgan.prefect_flow_run_id": "abc",
    }


def test_a_process_is_dead_only_when_that_is_certain() -> None:
    alive = describe_process()
    assert not is_process_dead(alive)
    assert is_process_dead({**alive, "clipgan.process_started": "1.00"}), (
        "its number was given away"
    )
    assert is_process_dead({**alive, "clipgan.pid": "4194999"})
    assert not is_process_dead({**alive, "clipgan.pid": "4194999", "clipgan.host": "elsewhere"})
    assert not is_process_dead({})
