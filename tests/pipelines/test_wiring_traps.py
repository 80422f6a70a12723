"""The traps of wiring Prefect, DVC and MLflow together: each by number, with its setting or test.

What several tests prove together is named in ``PROVED_BY``, and that table is checked.
"""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from ruamel.yaml import YAML

from clipgan.cli.process_environment import apply_environment
from clipgan.config import load_profile
from clipgan.tracking.mlflow_store import resolve_tracking_uri

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
FLOW_MODULES = ("training", "evaluation", "promotion", "pretraining", "stages")

PROVED_BY = {
    2: ["tests/pipelines/test_server.py::test_a_server_on_another_port_schedules_and_runs"],
    3: [
        "tests/pipelines/test_killing.py::"
        "test_a_stopped_flow_leaves_nothing_behind_and_can_be_run_again"
    ],
    11: ["tests/unit/tracking/test_registry.py::test_the_life_of_a_model"],
    12: ["tests/unit/tracking/test_registry.py::test_the_same_generator_is_one_version"],
    17: [
        "tests/unit/cli/test_project_folder.py::test_status_asks_dvc_nothing_while_a_pipeline_runs",
        "tests/pipelines/test_killing.py::test_the_second_of_two_pipelines_is_told_who_runs",
    ],
    19: ["tests/pipelines/test_dvc_project.py::test_an_experiment_in_a_copy_runs_its_own_tree"],
    23: [
        "tests/unit/cli/test_commands.py::test_sigterm_and_ctrl_c_end_a_command",
        "tests/unit/tracking/test_mlflow_run.py::test_sigterm_ends_the_run_as_killed",
    ],
    24: [
        "tests/unit/tracking/test_mlflow_run.py::"
        "test_a_run_holds_params_metrics_files_data_and_tags"
    ],
    25: ["tests/pipelines/test_killing.py::test_a_line_is_handed_over_when_it_is_printed"],
}


def load_yaml(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / name).read_text(encoding="utf-8"))


def iterate_calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def test_every_trap_has_a_test() -> None:
    here = re.findall(r"def test_trap_(\d+)", Path(__file__).read_text(encoding="utf-8"))
    assert {int(number) for number in here} | set(PROVED_BY) == set(range(1, 26))
    for tests in PROVED_BY.values():
        for test in tests:
            path, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), test


def test_trap_01_versions_that_start_together() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = {
        requirement.name: requirement.specifier
        for requirement in map(Requirement, declared["project"]["dependencies"])
    }
    for package, broken in (("fastapi", "0.155.0"), ("sqlalchemy", "2.1.9")):
        assert not requirements[package].contains(broken)
        assert requirements[package].contains(importlib.metadata.version(package))
    for package in ("prefect", "mlflow", "dvc"):
        assert str(requirements[package]).startswith("=="), package


def test_trap_04_tasks_are_called_directly() -> None:
    for path in (ROOT / "pipelines").glob("*.py"):
        for call in iterate_calls(path):
            attribute = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            assert attribute not in {"submit", "map", "delay"}, f"{path.name}:{call.lineno}"


@pytest.mark.parametrize("module", FLOW_MODULES)
def test_trap_05_prefect_keeps_no_second_cache(module: str) -> None:
    loaded = importlib.import_module(f"pipelines.{module}")
    found = [item for item in vars(loaded).values() if isinstance(item, Task | Flow)]
    assert found
    for item in found:
        assert item.persist_result is False, item.name
        if isinstance(item, Task):
            assert item.cache_policy == NO_CACHE, item.name


def test_trap_06_no_limit_that_may_not_exist() -> None:
    # A lock of the kernel guards the folder; Prefect's limits run unlimited when they are missing.
    for path in (ROOT / "pipelines").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "prefect.concurrency" not in text, path.name
    limit = load_yaml("prefect.yaml")["deployments"][0]["concurrency_limit"]
    assert limit["limit"] == 1


def test_trap_07_a_slow_machine_still_starts_the_ephemeral_server() -> None:
    found = apply_environment(ROOT, {})
    assert int(found["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"]) >= 90


def test_trap_08_the_stores_address_is_absolute() -> None:
    for root, variables in ((Path(), {}), (Path("/x"), {"DVC_ROOT": "/project"})):
        uri = resolve_tracking_uri(root, variables)
        assert Path(uri.removeprefix("sqlite:///")).is_absolute()
    # An experiment in a copy of the project logs into the project's own store.
    assert resolve_tracking_uri(Path("/x"), {"DVC_ROOT": "/project"}).startswith(
        "sqlite:////project/mlruns"
    )


def test_trap_09_no_job_workers_in_the_mlflow_server() -> None:
    assert apply_environment(ROOT, {})["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_trap_10_requirements_are_never_inferred() -> None:
    assert apply_environment(ROOT, {})["MLFLOW_UV_AUTO_DETECT"] == "false"
    saves = [
        call
        for path in SOURCES
        for call in iterate_calls(path)
        if name_of(call).endswith(("pyfunc.save_model", "pyfunc.log_model"))
    ]
    assert saves
    for call in saves:
        assert "pip_requirements" in {keyword.arg for keyword in call.keywords}


def test_trap_13_evaluation_depends_on_the_run_id() -> None:
    stages = load_yaml("dvc.yaml")["stages"]
    assert stages["train"]["outs"] == ["data/training"]  # mlflow.json is in it
    assert "data/training" in stages["evaluate"]["deps"]


def test_trap_14_resume_state_is_no_output() -> None:
    for stage in load_yaml("dvc.yaml")["stages"].values():
        # An entry with options, such as persist, would be a mapping.
        assert all(isinstance(out, str) and ".work" not in out for out in stage["outs"])
    assert "/.work" in (ROOT / "data" / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_trap_15_images_are_in_shards() -> None:
    for profile in (ROOT / "profiles").glob("*.yaml"):
        assert load_profile(profile).ingest.shard_size_mb >= 40


def read_dvc_config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read_string(re.sub(r"^\s+", "", (ROOT / ".dvc" / "config").read_text(), flags=re.M))
    return config


def test_trap_16_links_before_copies() -> None:
    assert read_dvc_config()["cache"]["type"].strip('"') == "reflink,hardlink,copy"


def test_trap_18_dvc_stages_nothing_in_git() -> None:
    assert read_dvc_config()["core"]["autostage"] == "false"


def test_trap_20_plots_need_nothing_from_the_network() -> None:
    # Curves are drawn by a library from a web server, pictures are not.
    for plot in load_yaml("dvc.yaml")["plots"]:
        assert str(plot).endswith(".png")


def test_trap_21_nothing_phones_home() -> None:
    assert apply_environment(ROOT, {"DO_NOT_TRACK": "1"})["DO_NOT_TRACK"] == "true"
    assert read_dvc_config()["core"]["analytics"] == "false"


def test_trap_22_nothing_is_unpickled() -> None:
    assert apply_environment(ROOT, {})["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    for path in SOURCES:
        for call in iterate_calls(path):
            assert not re.match(
                r"(cloudpickle|pickle|dill|joblib)\.\w*([Ll]oad|Unpickler)", name_of(call)
            )
            if name_of(call) == "torch.load":
                keywords = {keyword.arg: keyword.value for keyword in call.keywords}
                assert ast.unparse(keywords["weights_only"]) == "True", path
