"""What commands keep in a project folder: parameters, environment, lock, what is registered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipgan.cli import environment as environment_module
from clipgan.cli.environment import apply_environment, process_environment
from clipgan.cli.models import Registered, compute_state_key, find_registered, registered_file
from clipgan.cli.profiles import install_profile
from clipgan.cli.servers import build_command
from clipgan.cli.workspace_lock import find_lock_holder, lock_path, workspace_lock
from clipgan.config import load_params
from clipgan.errors import ConfigError, PipelineBusyError
from clipgan.stages.catalog import STAGES, Workspace, find_workspace
from tests.unit.cli.commands import ROOT, run_clipgan


class TestInit:
    def test_a_profile_keeps_its_comments_and_gets_the_folder(
        self, project: Workspace, tmp_path: Path
    ) -> None:
        images = tmp_path / 'my "own" images'
        images.mkdir()
        (images / "a.png").touch()
        install_profile(project, "folder", folder=images)
        params = load_params(project.params_file)
        assert params.ingest.source == "folder"
        assert params.ingest.folder == str(images)
        text = project.params_file.read_text()
        profile = (project.profiles / "folder.yaml").read_text()
        assert text.count(" # ") == profile.count(" # ")

    def test_changes_are_not_overwritten(self, project: Workspace) -> None:
        changed = project.params_file.read_text().replace("seed: 0", "seed: 3", 1)
        project.params_file.write_text(changed)
        with pytest.raises(ConfigError, match="holds changes of yours: --force replaces it"):
            install_profile(project, "emoji")
        assert project.params_file.read_text() == changed
        install_profile(project, "emoji", force=True)
        assert project.params_file.read_text() == (project.profiles / "emoji.yaml").read_text()

    def test_a_profile_with_another_folder_counts_as_unchanged(
        self, project: Workspace, tmp_path: Path
    ) -> None:
        for name in ("first", "second"):
            images = tmp_path / name
            images.mkdir()
            (images / "a.png").touch()
            install_profile(project, "folder", folder=images)
        install_profile(project, "emoji")
        install_profile(project, "emoji-base")

    @pytest.mark.parametrize(
        ("profile", "folder", "message"),
        [
            (
                "emojis",
                None,
                r"emojis is no profile: choose one of emoji, emoji-base, emoji-galip, "
                r"emoji-galip-base, folder",
            ),
            ("folder", None, r"profile folder: add --folder PATH"),
            ("emoji", "empty", r"profile emoji: leave out --folder"),
            ("folder", "missing", r"--folder .*missing: no such folder"),
            ("folder", "empty", r"--folder .*empty: is empty"),
        ],
    )
    def test_mistakes(
        self, project: Workspace, tmp_path: Path, profile: str, folder: str | None, message: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        before = project.params_file.read_bytes()
        with pytest.raises(ConfigError, match=message):
            install_profile(project, profile, folder=tmp_path / folder if folder else None)
        assert project.params_file.read_bytes() == before

    def test_a_damaged_profile_replaces_nothing(self, project: Workspace) -> None:
        profile = project.profiles / "emoji.yaml"
        profile.write_text(profile.read_text().replace("total_images: ", "total_images: -"))
        before = project.params_file.read_bytes()
        with pytest.raises(ConfigError, match="total_images"):
            install_profile(project, "emoji", force=True)
        assert project.params_file.read_bytes() == before
        assert [path.name for path in project.root.glob(".params*")] == []

    def test_by_command(self, project: Workspace) -> None:
        project.params_file.unlink()
        done = run_clipgan("init", "emoji", folder=project.root)
        assert done.stdout == "params.yaml is now the profile emoji; next: clipgan run\n"
        assert load_params(project.params_file) == load_params(ROOT / "params.yaml")


class TestEnvironment:
    def test_telemetry_is_off_whatever_the_shell_says(self) -> None:
        found = apply_environment(
            Path("/p"), {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "0"}
        )
        assert found["DO_NOT_TRACK"] == "true", "MLflow takes no other word"
        assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert found["DVC_NO_ANALYTICS"] == "1"

    def test_a_users_setting_wins_where_it_may(self) -> None:
        name = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
        assert apply_environment(Path("/p"), {name: "7"})[name] == "7"
        assert int(apply_environment(Path("/p"), {})[name]) >= 60
        assert apply_environment(Path("/p"), {})["PREFECT_HOME"] == "/p/.prefect"

    def test_processes_find_this_python_and_the_projects_own_code(self, tmp_path: Path) -> None:
        (tmp_path / "src" / "clipgan").mkdir(parents=True)
        found = process_environment(tmp_path)
        assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
        assert found["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path / "src")
        assert set(environment_module.ALWAYS) <= set(found)

    def test_servers_listen_on_the_loopback_only(self, project: Workspace) -> None:
        variables = apply_environment(project.root, {})
        mlflow = build_command("mlflow", 5999, project, variables)
        assert mlflow[mlflow.index("--host") + 1] == "127.0.0.1"
        assert mlflow[mlflow.index("--workers") + 1] == "1"
        assert f"sqlite:///{project.root}/mlruns/mlflow.db" in mlflow
        assert variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
        prefect = build_command("prefect", 4999, project, variables)
        assert "--port" not in prefect
        assert variables["PREFECT_SERVER_API_PORT"] == "4999"
        assert variables["PREFECT_SERVER_API_HOST"] == "127.0.0.1"


class TestLock:
    def test_a_second_holder_is_told_about_the_first(self, tmp_path: Path) -> None:
        with workspace_lock(tmp_path, "clipgan run"):
            holder = find_lock_holder(tmp_path)
            assert holder is not None
            assert (holder.pid, holder.command) == (os.getpid(), "clipgan run")
            with (
                pytest.raises(PipelineBusyError, match=f"process {os.getpid()}"),
                workspace_lock(tmp_path, "clipgan run"),
            ):
                pass
            assert find_lock_holder(tmp_path) == holder
        assert find_lock_holder(tmp_path) is None
        with workspace_lock(tmp_path, "again"):
            pass

    def test_kill_9_frees_it(self, tmp_path: Path) -> None:
        code = (
            "import sys, time; from pathlib import Path\n"
            "from clipgan.cli.workspace_lock import workspace_lock\n"
            "with workspace_lock(Path(sys.argv[1]), 'x'):\n"
            "    print('held', flush=True); time.sleep(60)"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert find_lock_holder(tmp_path) is not None
        holder.kill()
        holder.communicate()
        assert find_lock_holder(tmp_path) is None
        with workspace_lock(tmp_path, "next"):
            assert json.loads(lock_path(tmp_path).read_text())["command"] == "next"

    def test_status_asks_dvc_nothing_while_a_pipeline_runs(self, project: Workspace) -> None:
        # There is no DVC repository here: asking it would fail.
        with workspace_lock(project.root, "clipgan run"):
            done = run_clipgan("status", folder=project.root)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"running: clipgan run (process {os.getpid()}")


class TestRegistered:
    @staticmethod
    def save(project: Workspace, **changes: Any) -> None:
        params = load_params(project.params_file)
        fields = {
            "key": compute_state_key(params, project),
            "model_name": "m",
            "version": 1,
            "promoted": True,
            "is_champion": True,
            "reason": "first",
            "run_id": "r",
        }
        project.mlruns.mkdir(exist_ok=True)
        (project.mlruns / "mlflow.db").touch()
        registered_file(project).write_text(json.dumps(fields | changes))

    def test_known_while_nothing_changes(self, project: Workspace) -> None:
        project.dvc_lock.write_text("a")
        params = load_params(project.params_file)
        assert find_registered(params, project) is None
        self.save(project)
        found = find_registered(params, project)
        assert isinstance(found, Registered)
        assert str(found) == "m version 1, champion: first"
        project.dvc_lock.write_text("b")
        assert find_registered(params, project) is None

    def test_forgotten_with_the_store_the_gate_or_a_damaged_file(
        self, project: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.save(project)
        params = load_params(project.params_file)
        gate = params.register_model.model_copy(update={"min_improvement": 0.5})
        changed = params.model_copy(update={"register_model": gate})
        assert find_registered(changed, project) is None
        registered_file(project).write_text("{")
        assert find_registered(params, project) is None
        self.save(project, unknown=1)
        assert find_registered(params, project) is None
        self.save(project)
        (project.mlruns / "mlflow.db").unlink()
        assert find_registered(params, project) is None
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        assert find_registered(params, project) is None, "a remote store is always asked"


class TestCatalog:
    def test_the_project_is_found_from_below(self, project: Workspace) -> None:
        below = project.root / "data" / "images"
        below.mkdir(parents=True)
        assert find_workspace(below) == project

    def test_paths_exist(self, project: Workspace) -> None:
        for name, stage in STAGES.items():
            assert stage.name == name
            for path in (*stage.inputs, *stage.outputs):
                assert isinstance(getattr(project, path), Path)
