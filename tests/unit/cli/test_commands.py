"""The command line: light to import, one line for every mistake, nothing overwritten unasked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipgan.cli.error_reports import reported_errors
from clipgan.cli.process_environment import process_environment
from clipgan.errors import ConfigError, DataError, TrainingDivergedError
from clipgan.stages.catalog import run_stage
from clipgan.workspace import Workspace
from tests.unit.cli.commands import ROOT, run_clipgan

RECIPES = ("pretrain-clip", "pretrain-generator", "pretrain-mapper")


class TestImports:
    def test_help_loads_nothing_heavy(self) -> None:
        code = (
            "import sys, clipgan.cli, clipgan.stages.catalog, clipgan.cli.models\n"
            "heavy = {'torch', 'mlflow', 'prefect', 'dvc', 'pandas', 'numpy', 'pyarrow'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
        )
        assert done.stdout.strip() == "[]"

    def test_help_names_every_command(self, tmp_path: Path) -> None:
        done = run_clipgan("--help", folder=tmp_path)
        assert done.returncode == 0
        commands = (
            "run",
            "init",
            "generate",
            "ema",
            "register",
            "promote",
            "models",
            "status",
            "sync",
            "ui",
        )
        for command in commands:
            assert command in done.stdout

    def test_no_command_takes_a_hyper_parameter(self, tmp_path: Path) -> None:
        for command in ("run", "stage", *RECIPES):
            shown = run_clipgan(command, "--help", folder=tmp_path).stdout
            options = {word for word in shown.split() if word.startswith("--")}
            assert options <= {"--help"}, command
        for command in ("evaluate", "compare"):
            shown = run_clipgan(command, "--help", folder=tmp_path).stdout
            options = {word for word in shown.split() if word.startswith("--")}
            places = {"--help", "--out", "--protocol", "--reference", "--list-protocols"}
            assert options <= places, command


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "line", "code"),
        [
            (DataError("x = 1: use 2"), "error: x = 1: use 2", 2),
            (TrainingDivergedError("NaN"), "error: NaN", 1),
            (
                OSError(28, "No space left on device"),
                "error: OSError: [Errno 28] No space left on device (--debug shows where)",
                1,
            ),
            (KeyboardInterrupt(), "interrupted; run the same command again to resume", 130),
        ],
    )
    def test_each_is_one_line_and_an_exit_code(
        self, error: BaseException, line: str, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as left, reported_errors():
            raise error
        assert left.value.code == code
        assert capsys.readouterr().err.splitlines() == [line]

    def test_debug_shows_the_traceback_too(self, project: Workspace) -> None:
        project.params_file.write_text("train: [")
        plain = run_clipgan("stage", "train", folder=project.root)
        debug = run_clipgan("stage", "train", "--debug", folder=project.root)
        assert plain.returncode == debug.returncode == 2
        assert len(plain.stderr.splitlines()) == 1
        assert "Traceback" in debug.stderr
        assert debug.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]

    @pytest.mark.parametrize("command", [["run"], ["stage", "ingest"], ["status"], ["evaluate"]])
    def test_a_typo_in_params_ends_every_command_at_once(
        self, project: Workspace, command: list[str]
    ) -> None:
        text = project.params_file.read_text().replace("  total_images:", "  totalimages:")
        project.params_file.write_text(text)
        done = run_clipgan(*command, folder=project.root)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"error: {project.params_file}: train.totalimages = ")
        assert done.stderr.endswith(" is an unknown key: did you mean total_images? (and 1 more)\n")

    def test_a_terminal_in_ascii_gets_every_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        done = run_clipgan("generate", "Äpfel", "--model", "built-in", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "generated/\\xe4pfel-seed0-0.png\n"
        assert (tmp_path / "generated" / "äpfel-seed0-0.png").exists()

    def test_a_prompt_that_is_not_utf_8_is_one_line(self, tmp_path: Path) -> None:
        prompt = os.fsdecode(b"\xc4pfel")
        done = run_clipgan("generate", prompt, "--model", "built-in", folder=tmp_path)
        assert done.returncode == 2
        assert done.stderr == (
            "error: prompt '\\udcc4pfel' is no UTF-8 text: type it in a UTF-8 terminal\n"
        )

    @pytest.mark.parametrize(
        "command", [["run"], ["stage", "scan"], ["stage", "train"], ["status"], ["evaluate"]]
    )
    def test_sizes_that_do_not_fit_end_every_command_before_any_stage(
        self, project: Workspace, command: list[str]
    ) -> None:
        text = project.params_file.read_text()
        # In section train alone.
        project.params_file.write_text(text.replace("resolution_px: 64\n", "resolution_px: 128\n"))
        done = run_clipgan(*command, folder=project.root)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "error: train.resolution_px = 128, but ingest.resolution_px = 64 stores smaller "
            "images: set ingest.resolution_px to 128, or train.resolution_px to 64\n"
        )
        assert not (project.root / "data").exists()

    def test_outside_a_project(self, tmp_path: Path) -> None:
        done = run_clipgan("run", folder=tmp_path)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "no dvc.yaml here or above" in done.stderr

    def test_an_unknown_stage_names_the_known_ones(self, project: Workspace) -> None:
        with pytest.raises(
            ConfigError, match=r"trian is no stage: choose one of scan, settings, ingest, "
        ):
            run_stage("trian", project)

    def test_sigterm_and_ctrl_c_end_a_command(self, tmp_path: Path) -> None:
        code = (
            "import time\n"
            "from clipgan.cli import error_reports\n"
            "error_reports.exit_on_sigterm()\n"
            "with error_reports.reported_errors():\n"
            "    try:\n"
            "        print('ready', flush=True); time.sleep(60)\n"
            "    finally:\n"
            "        print('cleaned', flush=True)\n"
        )
        for number, exit_code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
            assert (process.returncode, output) == (exit_code, "cleaned\n")


class TestGenerate:
    def test_mistakes_end_before_anything_is_loaded(self, tmp_path: Path) -> None:
        started = time.monotonic()
        for arguments, message in (
            (["generate", "a", "--out", "a.gif"], ".gif is no format"),
            (
                ["generate", "a", "--model", "nowhere"],
                "nowhere: no generator bundle or checkpoint there",
            ),
            (["generate", "a", "--mix", "7"], "mix = '7': write SEED:FIRST-LAST"),
            (["generate", "a", "--latent-truncation", "0"], "latent_truncation = 0.0: use a num"),
        ):
            done = run_clipgan(*arguments, folder=tmp_path)
            assert done.returncode == 2, done.stderr
            assert message in done.stderr
            assert done.stderr.count("\n") == 1
        assert time.monotonic() - started < 60


class TestEvaluate:
    def test_protocols_are_listed_with_those_of_params(self, project: Workspace) -> None:
        text = project.params_file.read_text()
        mine = "custom_protocols: [{name: mine, based_on: cub, num_generated: 50}]"
        project.params_file.write_text(text.replace("custom_protocols: []", mine))
        done = run_clipgan("evaluate", "--list-protocols", folder=project.root)
        assert done.returncode == 0, done.stderr
        names = [line for line in done.stdout.splitlines() if line and line[0] != " "]
        assert names == [
            "fd-offline",
            "fid30k-val",
            "fid30k-train-lafite",
            "galip-legacy",
            "clean-fid",
            "zero-shot-coco",
            "cub",
            "mine",
        ]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["evaluate", "--protocol", "cub"], "name what to evaluate too"),
            (["evaluate", "nowhere"], "nowhere: no generator bundle or checkpoint there"),
            (["evaluate", "pngs"], "add --reference FOLDER"),
            (["evaluate", "pngs", "--reference", "empty"], "empty: holds no image"),
            (["evaluate", "pngs", "--reference", "dvc.yaml"], "dvc.yaml: is a file, not a folder"),
            (["evaluate", "dvc.yaml"], "dvc.yaml: is a file, not a folder; give built-in"),
            (["compare", "dvc.yaml", "built-in"], "dvc.yaml: is a file, not a folder"),
            (["import-weights", "lafite", "pngs", "--out", "o"], "pngs: is a folder, not a file"),
            (["import-weights", "galip", "pngs", "--out", "o"], "pngs: is a folder, not a file"),
            (["generate", "a", "--model", "dvc.yaml"], "dvc.yaml: is a file, not a folder"),
            (["evaluate", "built-in", "--out", "pngs"], "holds other files; name a new folder"),
            (["evaluate", "built-in", "--out", "pngs/a.png/x"], "is a file, not a folder"),
            (["evaluate", "built-in", "--protocol", "fid"], "protocol 'fid' is unknown"),
            (["compare", "built-in"], "name at least two models"),
        ],
    )
    def test_mistakes_are_one_line(
        self, project: Workspace, arguments: list[str], message: str
    ) -> None:
        (project.root / "pngs").mkdir()
        (project.root / "pngs" / "a.png").write_bytes(b"x")
        (project.root / "empty").mkdir()
        done = run_clipgan(*arguments, folder=project.root)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_an_address_space_limit_is_one_line(tmp_path: Path) -> None:
    # Too little for PyTorch to be loaded, whatever it was built for.
    command = f"ulimit -v 800000; exec {sys.executable} -m clipgan generate apple --device cpu"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path,
        env=process_environment(ROOT),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: out of memory: this shell allows a process ")
    assert "B of address space (`ulimit -v`); raise the limit" in line
