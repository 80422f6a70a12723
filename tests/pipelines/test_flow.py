"""Flows over a toy DVC project: order, one cache, failures, retries, timeouts, artifacts."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.client.schemas.objects import State

from clipgan.cli.workspace_lock import workspace_lock
from clipgan.errors import PipelineBusyError, StageFailedError
from clipgan.metrics.evaluations import Evaluation, save_evaluation
from clipgan.resume_state import has_waiting
from clipgan.tracking.spool import RunHeader, Spool
from clipgan.workspace import Workspace
from pipelines import stages
from pipelines.evaluation import evaluate_generator
from tests.metric_values import value_of
from tests.pipelines.conftest import PATIENCE, ToyProject, is_running

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(600)]

STAGES = ["look", "first", "second"]


@pytest.fixture(autouse=True)
def no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "dvc_stage", stages.dvc_stage.with_options(retry_delay_seconds=0))


@pytest.fixture(autouse=True)
def toy_imports(toy: ToyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, toy.environment[name])


def run_flow(toy: ToyProject, **parameters: Any) -> State[Any]:
    return evaluate_generator(str(toy.root), return_state=True, **parameters)


def read_tasks(state: State[Any]) -> dict[str, str]:
    """Task name -> state name of a flow run, in order of their start."""
    assert isinstance(state.state_details.flow_run_id, UUID)
    chosen = FlowRunFilter(id={"any_": [state.state_details.flow_run_id]})
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=chosen)
    runs.sort(key=lambda run: run.start_time)
    return {run.name: run.state_name for run in runs}


def wait_for_tasks(state: State[Any], expected: dict[str, str]) -> None:
    # The server takes in task states a moment after they happen.
    deadline = time.monotonic() + PATIENCE
    while read_tasks(state) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert read_tasks(state) == expected


def test_stages_run_in_dvcs_order_and_dvc_agrees_that_all_is_done(toy: ToyProject) -> None:
    state = run_flow(toy)
    assert state.is_completed()
    assert toy.take_runs() == STAGES
    wait_for_tasks(state, dict.fromkeys(STAGES, "Completed"))
    # `dvc repro` alone finds nothing to do but the look: one truth.
    toy.run("-m", "dvc", "repro")
    assert toy.take_runs() == ["look"]


def test_what_dvc_has_done_is_cached_and_only_the_changed_part_reruns(toy: ToyProject) -> None:
    assert toy.run("-m", "dvc", "repro").returncode == 0
    toy.take_runs()
    state = run_flow(toy)
    assert toy.take_runs() == ["look"]
    wait_for_tasks(state, {"look": "Completed", "first": "Cached", "second": "Cached"})
    toy.set_params({"evaluate.seed": 7})
    run_flow(toy)
    assert toy.take_runs() == ["look", "second"]


def test_a_deleted_output_is_brought_back(toy: ToyProject) -> None:
    run_flow(toy)
    (toy.root / "data" / "first").unlink()
    run_flow(toy)
    assert (toy.root / "data" / "first").exists()


def test_a_users_mistake_ends_the_flow_with_its_own_line(toy: ToyProject) -> None:
    toy.set_mode("first", "fail")
    state = run_flow(toy)
    assert state.is_failed()
    with pytest.raises(
        StageFailedError, match=r"^first: first\.x = 7: use a smaller one$"
    ) as caught:
        state.result()
    assert caught.value.exit_code == 2
    assert toy.take_runs() == ["look", "first"], "no retry, and nothing after it"
    wait_for_tasks(state, {"look": "Completed", "first": "Failed"})
    toy.set_mode("first", "")
    assert run_flow(toy).is_completed()
    assert toy.take_runs() == STAGES


def test_a_crash_is_not_retried_and_names_its_last_line(toy: ToyProject) -> None:
    toy.set_mode("first", "crash")
    with pytest.raises(StageFailedError) as caught:
        run_flow(toy).result()
    assert caught.value.exit_code == 1
    assert toy.take_runs() == ["look", "first"]


def test_a_killed_stage_is_tried_once_more(toy: ToyProject) -> None:
    toy.set_mode("first", "killed once")
    assert run_flow(toy).is_completed()
    assert toy.take_runs() == ["look", "first", "first", "second"]


def test_a_timeout_ends_the_stage_and_its_children_at_once(toy: ToyProject) -> None:
    toy.set_mode("second", "sleep")
    started = time.monotonic()
    state = run_flow(toy, stage_timeout_seconds=12.0)
    assert state.is_failed()
    assert time.monotonic() - started < PATIENCE
    assert not any(is_running(pid) for pid in toy.wait_for_pids())
    assert not (toy.root / "data" / "second").exists()
    toy.set_mode("second", "")
    assert run_flow(toy).is_completed()


def test_a_second_pipeline_gets_one_clear_line(toy: ToyProject) -> None:
    busy = r"^another pipeline runs in .*: clipgan run \(process \d+, since [0-9:]+\); wait for .*$"
    with workspace_lock(toy.root, "clipgan run"), pytest.raises(PipelineBusyError, match=busy):
        run_flow(toy).result()
    assert toy.take_runs() == []


def test_stage_lines_are_in_the_task_runs_log(toy: ToyProject) -> None:
    state = run_flow(toy)
    chosen = LogFilter(flow_run_id={"any_": [state.state_details.flow_run_id]})
    deadline = time.monotonic() + PATIENCE
    messages: list[str] = []
    while "second 2/2 images" not in messages and time.monotonic() < deadline:
        with get_client(sync_client=True) as client:
            messages = [log.message for log in client.read_logs(chosen)]
        time.sleep(0.2)
    assert {"first 1/2 images", "first 2/2 images", "second 2/2 images"} <= set(messages)


def test_what_waits_for_mlflow_is_sent_at_the_end(
    toy: ToyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(Workspace(toy.root).work("train") / "a", RunHeader("key", "test", "name", 0))
    spool.append("metrics", step=16, values={"loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert run_flow(toy).is_completed(), "a server that is away ends no run"
    assert has_waiting(spool.folder)
    state = run_flow(toy)
    assert state.is_completed()
    expected = {"look": "Completed", "first": "Cached", "second": "Cached", "sync": "Completed"}
    wait_for_tasks(state, expected)
    assert not has_waiting(spool.folder)


def test_the_evaluation_is_published(toy: ToyProject) -> None:
    from pipelines.prefect_artifacts import publish_evaluation

    workspace = Workspace(toy.root)
    values = {
        "trained": {"fd": value_of("fd", 2.5, 0.5), "recall": value_of("recall", 0.0)},
        "initial": {"fd": value_of("fd", 3.0)},
    }
    save_evaluation(workspace.evaluation, Evaluation(values, baseline="initial"))
    picture = b"\x89PNG not really"
    workspace.report.mkdir()
    (workspace.report / "samples.png").write_bytes(picture)
    workspace.training.mkdir()
    (workspace.training / "mlflow.json").write_text('{"run_id": "abc"}')

    @flow
    def publish() -> None:
        publish_evaluation(workspace)

    run_id = publish(return_state=True).state_details.flow_run_id
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id={"any_": [run_id]}))
    data = {artifact.key: artifact.data for artifact in found}
    (said,) = [str(artifact.description) for artifact in found if artifact.key == "metrics"]
    assert "- trained against initial, paired: no difference shown" in said
    assert "- No variety: recall is 0 (trained)" in said
    assert json.loads(str(data["metrics"])) == [
        {"metric": "fd", "before": "3", "after": "2.5", "difference": "none shown"},
        {"metric": "recall", "before": "", "after": "0", "difference": ""},
    ]
    assert data["samples"] == f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    assert "/#/runs/abc" in str(data["mlflow-run"])
