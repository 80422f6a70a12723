"""MLflow away, hanging, full or locked: nothing waits for it, and everything arrives once."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clipgan.artifacts import write_json
from clipgan.errors import RegistryError
from clipgan.tracking import run_contexts, sender
from clipgan.tracking.mlflow_run import (
    KEY_TAG,
    describe_stand_in,
    find_or_make_run,
    read_run_id,
)
from clipgan.tracking.mlflow_store import open_client, sqlite_path
from clipgan.tracking.run_contexts import (
    continue_run,
    open_comparison_run,
    open_training_run,
)
from clipgan.tracking.sender import send, send_waiting_runs
from clipgan.tracking.spool import Spool, find_spools, load_header
from tests.mlflow_stores import list_points

NOBODY = "http://127.0.0.1:9"
"""The port of the discard service: nothing listens there."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sender, "SEND_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(run_contexts, "FINISH_SECONDS", 60.0)
    return tmp_path / ".work"


def train(tracking_uri: str, work: Path, name: str = "a", run_file: Path | None = None) -> None:
    """What a training logs; its ``mlflow.json`` where one is asked for."""
    picture = work.parent / "grid.png"
    picture.write_bytes(b"picture")
    with open_training_run(
        tracking_uri=tracking_uri,
        experiment="test",
        folder=work / "train" / name,
        fingerprint=name,
        run_name=f"training {name}",
        sample_system=False,
    ) as logger:
        logger.log_params({"seed": 0})
        for seen in (16, 32):
            logger.log_metrics({"loss": 1.0 / seen, "nan": float("nan")}, seen)
        logger.log_file(picture, "samples")
        logger.log_dataset("images", work, "d" * 64, context="training")
        if run_file is not None:
            write_json(run_file, {"run_id": logger.run_id, "run_key": logger.run_key})


def evaluate(tracking_uri: str, work: Path, run_file: Path, distance: float) -> None:
    with continue_run(
        read_run_id(run_file),
        tracking_uri=tracking_uri,
        experiment="test",
        work=work / "tracking",
    ) as logger:
        logger.log_metrics({"distance": distance}, 32)


def find_runs(tracking_uri: str) -> list[Any]:
    client = open_client(tracking_uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments))


def test_a_training_without_its_server_ends_well_and_arrives_later(
    tracking_uri: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = tmp_path / "mlflow.json"
    started = time.monotonic()
    train(NOBODY, work, run_file=run_file)
    evaluate(NOBODY, work, run_file, 3.0)
    assert time.monotonic() - started < 30, "it waited for the server"
    assert json.loads(run_file.read_text())["run_id"] is None
    said = capsys.readouterr().out
    assert "4 points and 1 files wait for MLflow" in said
    assert "`clipgan sync` sends them" in said
    with pytest.raises(RegistryError, match=NOBODY):
        send_waiting_runs(work, NOBODY)

    assert len(send_waiting_runs(work, tracking_uri)) == 2
    (run,) = find_runs(tracking_uri)
    assert (run.info.run_name, run.info.status) == ("training a", "FINISHED")
    assert run.data.params == {"seed": "0"}
    client = open_client(tracking_uri)
    points = list_points(tracking_uri, run.info.run_id)
    assert points["loss"] == [(16, 1 / 16), (32, 1 / 32)]
    assert [step for step, _ in points["nan"]] == [16, 32]
    assert points["distance"] == [(32, 3.0)]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "samples")] == [
        "samples/grid.png"
    ]
    assert len(run.inputs.dataset_inputs) == 1
    reference = read_run_id(run_file)
    assert reference is not None, "the key stands for the id"
    found = find_or_make_run(client, tracking_uri, describe_stand_in(reference, "test"))
    assert found == run.info.run_id
    assert send_waiting_runs(work, tracking_uri) == []
    assert not (work / "train" / "a").exists()


def test_an_evaluation_that_arrives_first_makes_the_run(
    tracking_uri: str, work: Path, tmp_path: Path
) -> None:
    run_file = tmp_path / "mlflow.json"
    train(NOBODY, work, run_file=run_file)
    evaluate(tracking_uri, work, run_file, 3.0)
    send_waiting_runs(work, tracking_uri)
    (run,) = find_runs(tracking_uri)
    assert run.info.status == "FINISHED"
    assert set(list_points(tracking_uri, run.info.run_id)) == {"loss", "nan", "distance"}


def test_what_was_sent_without_an_answer_stands_once(tracking_uri: str, work: Path) -> None:
    train(NOBODY, work)
    (folder,) = find_spools(work)
    header = load_header(folder)
    assert header is not None
    spool = Spool(folder, header)
    send(spool, tracking_uri)
    before = list_points(tracking_uri, spool.header.run_id)
    # The answers were lost, that to making the run among them.
    write_json(folder / "mlflow.json", vars(header))
    (folder / "spool" / "position.json").unlink()
    send(Spool(folder, header), tracking_uri)
    (run,) = find_runs(tracking_uri)
    assert run.data.tags[KEY_TAG] == header.key
    assert str(list_points(tracking_uri, run.info.run_id)) == str(before), "str: nan is not nan"
    assert len(run.inputs.dataset_inputs) == 1


def test_an_evaluation_again_adds_what_differs(
    tracking_uri: str, work: Path, tmp_path: Path
) -> None:
    run_file = tmp_path / "mlflow.json"
    train(tracking_uri, work, run_file=run_file)
    for distance in (3.0, 3.0, 2.0):
        evaluate(tracking_uri, work, run_file, distance)
    (run,) = find_runs(tracking_uri)
    assert list_points(tracking_uri, run.info.run_id)["distance"] == [(32, 2.0), (32, 3.0)]
    assert run.data.metrics["distance"] == 2.0, "the last one is shown"
    assert len(find_spools(work)) == 1
    train(tracking_uri, work, "b", run_file=run_file)
    evaluate(tracking_uri, work, run_file, 1.0)
    assert len(find_spools(work)) == 1, "that of the training before is gone"


def test_points_of_steps_that_are_repeated_stand_once(tracking_uri: str, work: Path) -> None:
    with open_training_run(
        tracking_uri=tracking_uri,
        experiment="test",
        folder=work / "train" / "a",
        fingerprint="a",
        run_name="a",
        sample_system=False,
    ) as logger:
        # A loss became NaN after 48: back to 16, with other random numbers.
        for seen, loss in ((16, 1.0), (32, 2.0), (48, 3.0), (32, 4.0), (48, 5.0), (64, 6.0)):
            logger.log_metrics({"loss": loss}, seen)
        run_id = logger.run_id
    expected = [(16, 1.0), (32, 2.0), (48, 3.0), (64, 6.0)]
    assert list_points(tracking_uri, run_id)["loss"] == expected


def test_a_locked_database_keeps_nobody_waiting(
    tracking_uri: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_contexts, "FINISH_SECONDS", 1.0)
    open_client(tracking_uri)
    database = sqlite_path(tracking_uri)
    assert database is not None
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        train(tracking_uri, work)
        assert time.monotonic() - started < 10
    for _ in range(600):
        # The thread of the training that has ended may still be at it.
        try:
            send_waiting_runs(work, tracking_uri)
        except RegistryError:
            time.sleep(0.1)
        else:
            break
    (run,) = find_runs(tracking_uri)
    assert run.info.status == "FINISHED"
    assert list_points(tracking_uri, run.info.run_id)["loss"] == [(16, 1 / 16), (32, 1 / 32)]


def test_a_store_that_is_full_keeps_points_in_the_spool(
    tracking_uri: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite answers so when its disk is full: here its database may not grow."""
    database = sqlite_path(tracking_uri)
    assert database is not None
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    limit = {"pages": 0}

    def cap(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit['pages'] or 2**30}")

    def cap_again(connection: Any, _record: Any, _proxy: Any) -> None:
        cap(connection, None)

    event.listen(Engine, "checkout", cap_again)
    try:
        limit["pages"] = 1
        with open_training_run(
            tracking_uri=tracking_uri,
            experiment="test",
            folder=work / "train" / "a",
            fingerprint="a",
            run_name="a",
            sample_system=False,
        ) as logger:
            for seen in range(0, 16_000, 16):
                logger.log_metrics({"loss": 1.0, "other": 2.0}, seen)
        assert find_spools(work), "a full database took it all"
        limit["pages"] = 0
        send_waiting_runs(work, tracking_uri)
    finally:
        event.remove(Engine, "checkout", cap_again)
    (run,) = find_runs(tracking_uri)
    points = list_points(tracking_uri, run.info.run_id)
    assert [step for step, _ in points["loss"]] == list(range(0, 16_000, 16))


def test_a_comparison_waits_too(tracking_uri: str, work: Path) -> None:
    with open_comparison_run(
        tracking_uri=NOBODY, experiment="test", models="built-in other", work=work / "tracking"
    ) as logger:
        logger.log_metrics({"distance": 1.0}, 0)
    send_waiting_runs(work, tracking_uri)
    (run,) = find_runs(tracking_uri)
    assert (run.info.run_name, run.info.status) == ("comparison of built-in other", "FINISHED")
    assert find_spools(work) == []


def test_a_point_that_the_store_refuses_holds_up_nothing(
    tracking_uri: str, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_training_run(
        tracking_uri=tracking_uri,
        experiment="test",
        folder=work / "train" / "a",
        fingerprint="a",
        run_name="a",
        sample_system=False,
    ) as logger:
        logger.log_metrics({"loss": 1.0}, 16)
        logger.log_metrics({"a name with ?": 1.0}, 16)
        logger.log_metrics({"loss": 2.0}, 32)
        run_id = logger.run_id
    assert list_points(tracking_uri, run_id) == {"loss": [(16, 1.0), (32, 2.0)]}
    assert "skipped" in caplog.text
