"""Runs in a real store: what is logged, how they end, how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from clipgan.errors import RegistryError
from clipgan.tracking.mlflow_run import read_run_id, sweep_stale_runs
from clipgan.tracking.mlflow_store import open_client
from clipgan.tracking.provenance import HOST_TAG, PID_TAG
from clipgan.tracking.run_contexts import continue_run, open_training_run
from clipgan.training.earlier_runs import flatten
from tests.params import params_with


def open_run(tracking_uri: str, folder: Path, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "tracking_uri": tracking_uri,
        "experiment": "test",
        "folder": folder,
        "fingerprint": "f1",
        "run_name": "tiny training",
        "sample_system": False,
    }
    return open_training_run(**(arguments | changes))


def reopen(reference: str | None, tracking_uri: str, tmp_path: Path) -> Any:
    return continue_run(
        reference, tracking_uri=tracking_uri, experiment="test", work=tmp_path / "tracking"
    )


def steps(client: Any, run_id: str | None, name: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, name)]


def await_status(tracking_uri: str, run_id: str | None, status: str) -> bool:
    client = open_client(tracking_uri)
    for _ in range(300):
        if client.get_run(run_id).info.status == status:
            return True
        time.sleep(0.1)
    return False


def test_a_run_holds_params_metrics_files_data_and_tags(tracking_uri: str, tmp_path: Path) -> None:
    sample = tmp_path / "grid.png"
    sample.write_bytes(b"picture")
    folder = tmp_path / "work"
    digest = "0123456789abcdef" * 4
    with open_run(tracking_uri, folder, tags={"clipgan.dvc_stage": "train"}) as logger:
        assert logger.run_id == json.loads((folder / "mlflow.json").read_text())["run_id"]
        logger.log_params(flatten("train", params_with().train.model_dump(mode="json")))
        for seen in range(0, 1600, 16):
            logger.log_metrics({"loss/generator": seen / 2, "images_per_second": 8.0}, seen)
        logger.log_file(sample, "samples")
        logger.log_dataset("images", tmp_path, digest, context="training")
    client = open_client(tracking_uri)
    run = client.get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lafite.optimizer.beta2"] == "0.99"
    policies = run.data.params["train.augmentation.policies"]
    assert policies == '["color", "translation", "cutout"]'
    assert steps(client, logger.run_id, "loss/generator") == list(range(0, 1600, 16))
    assert run.data.metrics["loss/generator"] == 1584 / 2
    assert run.data.tags["clipgan.dvc_stage"] == "train"
    assert [item.path for item in client.list_artifacts(logger.run_id, "samples")] == [
        "samples/grid.png"
    ]
    assert (tmp_path / "mlruns" / "artifacts") in Path(run.info.artifact_uri[7:]).parents
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == digest[:36]
    assert {tag.key: tag.value for tag in data.tags}["clipgan.fingerprint"] == digest
    assert run.info.run_name == "tiny training"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("broken"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
    ],
)
def test_the_way_out_decides_the_status(
    tracking_uri: str, tmp_path: Path, error: BaseException, status: str
) -> None:
    folder = tmp_path / "work"
    with pytest.raises(type(error)), open_run(tracking_uri, folder) as logger:
        logger.log_metrics({"loss": 1.0}, 16)
        raise error
    client = open_client(tracking_uri)
    assert client.get_run(logger.run_id).info.status == status
    assert steps(client, logger.run_id, "loss") == [16]
    assert (folder / "mlflow.json").exists()


def test_a_stopped_training_goes_on_in_its_run_without_doubled_points(
    tracking_uri: str, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), open_run(tracking_uri, folder) as first:
        first.log_params({"monitoring.log_interval_images": 16, "train.seed": 0})
        first.log_dataset("images", tmp_path, "d" * 64, context="training")
        for seen in (16, 32, 48):
            first.log_metrics({"loss": 1.0}, seen)
        raise KeyboardInterrupt
    with open_run(tracking_uri, folder) as second:
        assert second.run_id == first.run_id
        assert await_status(tracking_uri, second.run_id, "RUNNING")
        second.log_params({"monitoring.log_interval_images": 32, "train.seed": 0})
        second.log_dataset("images", tmp_path, "d" * 64, context="training")
        # The checkpoint was at 16: the training repeats 32 and 48.
        for seen in (32, 48, 64):
            second.log_metrics({"loss": 1.0}, seen)
    client = open_client(tracking_uri)
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert steps(client, first.run_id, "loss") == [16, 32, 48, 64]
    assert run.data.params["monitoring.log_interval_images"] == "16"
    assert run.data.tags["changed.monitoring.log_interval_images"] == "32"
    assert "changed.train.seed" not in run.data.tags
    assert len(run.inputs.dataset_inputs) == 1


def test_a_training_goes_on_in_its_run_whatever_was_trained_in_between(
    tracking_uri: str, tmp_path: Path
) -> None:
    runs = []
    for name, error in (("a", KeyboardInterrupt), ("b", None), ("a", None)):
        with (
            pytest.raises(error) if error else nullcontext(),
            open_run(tracking_uri, tmp_path / name, fingerprint=name) as logger,
        ):
            logger.log_metrics({"loss": 1.0}, 16 * (len(runs) + 1))
            runs.append(logger.run_id)
            if error:
                raise error
    assert runs[0] == runs[2] != runs[1]
    client = open_client(tracking_uri)
    assert steps(client, runs[0], "loss") == [16, 48]
    assert steps(client, runs[1], "loss") == [32]


def test_a_run_that_was_deleted_is_replaced(
    tracking_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), open_run(tracking_uri, folder) as first:
        first.log_metrics({"loss": 1.0}, 16)
        raise KeyboardInterrupt
    deleted = first.run_id
    open_client(tracking_uri).delete_run(deleted)
    with open_run(tracking_uri, folder) as second:
        assert second.run_id != first.run_id
    assert f"{deleted} is not in this store" in capsys.readouterr().out
    assert steps(open_client(tracking_uri), second.run_id, "loss") == [16], "all is sent again"


def test_a_damaged_run_file_makes_a_new_run(
    tracking_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), open_run(tracking_uri, folder) as first:
        raise KeyboardInterrupt
    (folder / "mlflow.json").write_text('{"run_id": ')
    with open_run(tracking_uri, folder) as second:
        assert second.run_id not in (None, first.run_id)
    assert "mlflow.json is damaged: logging to a new MLflow run" in caplog.text


def test_evaluation_adds_to_the_finished_run(tracking_uri: str, tmp_path: Path) -> None:
    with open_run(tracking_uri, tmp_path / "work") as training:
        training.log_metrics({"loss": 1.0}, 16)
    with reopen(training.run_id, tracking_uri, tmp_path) as logger:
        assert logger.run_id == training.run_id
        logger.log_metrics({"fd": 3.0}, 16)
    run = open_client(tracking_uri).get_run(training.run_id)
    assert run.data.metrics == {"loss": 1.0, "fd": 3.0}
    assert run.info.status == "FINISHED"


def test_a_failed_evaluation_leaves_the_training_finished(
    tracking_uri: str, tmp_path: Path
) -> None:
    with open_run(tracking_uri, tmp_path / "work") as training:
        pass
    with (
        pytest.raises(ValueError, match="broken"),
        reopen(training.run_id, tracking_uri, tmp_path),
    ):
        raise ValueError("broken")
    assert open_client(tracking_uri).get_run(training.run_id).info.status == "FINISHED"


def test_a_run_of_another_store_gets_one_stand_in(
    tracking_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = []
    for number in range(2):
        with reopen("0" * 32, tracking_uri, tmp_path / str(number)) as logger:
            logger.log_metrics({"fd": 3.0}, 16)
            ids.append(logger.run_id)
    assert ids[0] == ids[1]
    assert capsys.readouterr().out.count("is not in this store") == 1


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "{"])
def test_a_missing_or_damaged_run_id_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "mlflow.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RegistryError, match="run the train stage"):
        read_run_id(path)


def test_a_training_without_tracking_has_no_run_id(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.json"
    path.write_text('{"run_id": null}')
    assert read_run_id(path) is None


TRAINER = """
import signal, sys, time
from pathlib import Path
from clipgan.tracking.run_contexts import open_training_run

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
with open_training_run(
    tracking_uri=sys.argv[1], experiment="test", folder=Path(sys.argv[2]), fingerprint="f1",
    run_name="tiny", sample_system=False,
) as logger:
    logger.log_metrics({"loss": 1.0}, 16)
    print(logger.run_id, flush=True)
    time.sleep(float(sys.argv[3]))
    logger.log_metrics({"loss": 1.0}, 16)
    logger.log_metrics({"loss": 2.0}, 32)
"""


@contextmanager
def trainer(tracking_uri: str, folder: Path, seconds: float) -> Iterator[tuple[Any, str]]:
    """A training in a process of its own that has logged one point; killed on the way out."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, tracking_uri, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_sigkill_then_the_same_command_continues_the_run(tracking_uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    client = open_client(tracking_uri)
    with trainer(tracking_uri, folder, 300) as (process, run_id):
        assert sweep_stale_runs(tracking_uri) == [], "its process is alive"
        process.kill()
        process.wait()
        assert client.get_run(run_id).info.status == "RUNNING"
    assert sweep_stale_runs(tracking_uri) == [run_id]
    assert client.get_run(run_id).info.status == "KILLED"
    with trainer(tracking_uri, folder, 0) as (process, same_id):
        assert process.wait(timeout=200) == 0
    assert same_id == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert steps(client, run_id, "loss") == [16, 32]


def test_sigterm_ends_the_run_as_killed(tracking_uri: str, tmp_path: Path) -> None:
    with trainer(tracking_uri, tmp_path / "work", 300) as (process, run_id):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=200) == 128 + signal.SIGTERM
    assert open_client(tracking_uri).get_run(run_id).info.status == "KILLED"


def test_runs_of_other_hosts_and_other_programs_are_left_running(tracking_uri: str) -> None:
    client = open_client(tracking_uri)
    elsewhere = client.create_run("0", tags={HOST_TAG: "elsewhere", PID_TAG: "1"})
    foreign = client.create_run("0")
    assert sweep_stale_runs(tracking_uri) == []
    for run in (elsewhere, foreign):
        assert client.get_run(run.info.run_id).info.status == "RUNNING"


def test_a_sweep_makes_no_store(tmp_path: Path) -> None:
    assert sweep_stale_runs(f"sqlite:///{tmp_path}/mlruns/mlflow.db") == []
    assert list(tmp_path.iterdir()) == []


def test_system_metrics_are_sampled(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with open_run(tracking_uri, tmp_path / "work", sample_system=True) as logger:
        time.sleep(0.5)
    metrics = open_client(tracking_uri).get_run(logger.run_id).data.metrics
    assert "system/cpu_utilization_percentage" in metrics
