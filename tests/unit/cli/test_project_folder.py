"""What commands keep in a project folder: parameters, environment, lock, what is registered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipgan.artifacts import write_json
from clipgan.cli import process_environment as environment_module
from clipgan.cli.models import Registered, compute_state, find_registered
from clipgan.cli.process_environment import apply_environment, process_environment
from clipgan.cli.profiles import install_profile
from clipgan.cli.servers import build_command
from clipgan.cli.workspace_lock import find_lock_holder, lock_path, workspace_lock
from clipgan.config import load_params
from clipgan.errors import ConfigError, PipelineBusyError, RegistryError
from clipgan.tracking.mlflow_store import open_client, resolve_tracking_uri
from clipgan.tracking.versions import GATE_TAG
from clipgan.workspace import Workspace, find_workspace
from tests.mlflow_stores import save_version
from tests.unit.cli.commands import ROOT, run_clipgan

NAME = "clipgan-emoji"


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
        assert params.ingest.source_keys["folder"] == str(images)
        text = project.params_file.read_text()
        assert text.startswith("# Profile `folder`")
        base = (project.profiles / "emoji.yaml").read_text()
        assert text.count(" # ") >= base.count(" # ") > 50

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
                r"emoji-galip-base, emoji-looks-base, folder",
            ),
            ("folder", None, r"profile folder: add --folder PATH"),
            ("emoji", "empty", r"profile emoji: leave out --folder"),
            ("folder", "missing", r"--folder .*missing: no such folder"),
            ("folder", "file.zip", r"--folder .*file\.zip: is a file, not a folder; give the root"),
            ("folder", "empty", r"--folder .*empty: is empty"),
        ],
    )
    def test_mistakes(
        self, project: Workspace, tmp_path: Path, profile: str, folder: str | None, message: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file.zip").touch()
        before = project.params_file.read_bytes()
        with pytest.raises(ConfigError, match=message):
            install_profile(project, profile, folder=tmp_path / folder if folder else None)
        assert project.params_file.read_bytes() == before

    def test_a_folder_whose_name_is_not_utf_8_is_one_line(
        self, project: Workspace, tmp_path: Path
    ) -> None:
        images = tmp_path / os.fsdecode(b"f\xf6lder")
        images.mkdir()
        (images / "a.png").touch()
        before = project.params_file.read_bytes()
        done = run_clipgan("init", "folder", "--folder", str(images), folder=project.root)
        assert done.returncode == 2
        assert done.stderr.endswith("is written in: rename the folder\n")
        assert done.stderr.count("\n") == 1
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
    """The registry is asked; nothing that a command wrote down earlier is believed."""

    @pytest.fixture(autouse=True)
    def own_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "environ", os.environ.copy())

    @staticmethod
    def save(project: Workspace, database: Path, *aliases: str) -> Any:
        project.mlruns.mkdir()
        shutil.copyfile(database, project.mlruns / "mlflow.db")
        params = load_params(project.params_file)
        uri = resolve_tracking_uri(project.root, {})
        folder = project.mlruns / "artifacts" / "model"
        save_version(uri, folder, NAME, compute_state(params, project), aliases)
        return open_client(uri)

    @staticmethod
    def find(project: Workspace) -> Registered | None:
        return find_registered(load_params(project.params_file), project)

    def test_known_while_nothing_changes(self, project: Workspace, migrated_database: Path) -> None:
        assert self.find(project) is None
        self.save(project, migrated_database, "challenger", "champion")
        found = self.find(project)
        assert isinstance(found, Registered)
        assert str(found) == f"{NAME} version 1, champion: better"
        write_json(project.evaluation / "evaluation.json", {"trained": {}})
        assert self.find(project) is None

    def test_a_moved_alias_is_seen(self, project: Workspace, migrated_database: Path) -> None:
        client = self.save(project, migrated_database, "challenger", "champion")
        other = client.create_model_version(NAME, "somewhere")
        client.set_registered_model_alias(NAME, "champion", other.version)
        found = self.find(project)
        assert str(found) == f"{NAME} version 1, challenger (champion: version 2): better"
        client.set_registered_model_alias(NAME, "challenger", other.version)
        assert self.find(project) is None, "neither alias: registering sets one again"

    def test_a_champion_that_lost_its_alias_is_registered_again(
        self, project: Workspace, migrated_database: Path
    ) -> None:
        client = self.save(project, migrated_database, "challenger", "champion")
        client.delete_registered_model_alias(NAME, "champion")
        assert self.find(project) is None
        client.set_model_version_tag(NAME, "1", GATE_TAG, "refused")
        found = self.find(project)
        assert str(found) == f"{NAME} version 1, challenger (no champion): better"

    def test_a_deleted_version_and_lost_files_are_seen(
        self, project: Workspace, migrated_database: Path
    ) -> None:
        client = self.save(project, migrated_database, "challenger", "champion")
        file = project.mlruns / "artifacts" / "model" / "MLmodel"
        file.rename(file.with_name("away"))
        assert self.find(project) is None
        file.with_name("away").rename(file)
        assert self.find(project) is not None
        client.delete_model_version(NAME, "1")
        assert self.find(project) is None

    def test_the_gates_settings_count(self, project: Workspace, migrated_database: Path) -> None:
        self.save(project, migrated_database, "challenger", "champion")
        params = load_params(project.params_file)
        gate = params.register_model.model_copy(update={"min_improvement": 0.5})
        changed = params.model_copy(update={"register_model": gate})
        assert find_registered(changed, project) is None

    def test_no_store_and_a_new_one_hold_nothing(self, project: Workspace) -> None:
        assert self.find(project) is None
        assert not project.mlruns.exists()
        project.mlruns.mkdir()
        (project.mlruns / "mlflow.db").touch()
        assert self.find(project) is None

    def test_a_damaged_store_is_named(self, project: Workspace) -> None:
        project.mlruns.mkdir()
        (project.mlruns / "mlflow.db").write_bytes(b"no database" * 500)
        with pytest.raises(RegistryError, match=r"mlflow\.db cannot be used: .*not a database"):
            self.find(project)


class TestWorkspace:
    def test_the_project_is_found_from_below(self, project: Workspace) -> None:
        below = project.root / "data" / "images"
        below.mkdir(parents=True)
        assert find_workspace(below) == project
