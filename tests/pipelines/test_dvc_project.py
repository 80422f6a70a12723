"""The project's own dvc.yaml in a git clone: repro, metrics, plots, experiments, registration."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from clipgan.cli.process_environment import QUIET_PREFECT, apply_environment, process_environment
from tests.params import tree_with
from tests.pipelines.conftest import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]

NUM_IMAGES = 60

TINY = {
    "threads": 1,  # bits of trainings are compared
    "ingest.source": "folder",
    "ingest.folder": "own",
    "ingest.resolution_px": 32,
    "train.resolution_px": 32,
    "train.initial_weights": "none",
    "train.total_images": 64,
    "train.batch_size": 8,
    "train.lafite.generator.latent_dim": 16,
    "train.lafite.generator.style_dim": 16,
    "train.lafite.generator.text_hidden_dim": 16,
    "train.lafite.generator.mapping_layers": 2,
    "train.lafite.generator.channel_base": 256,
    "train.lafite.generator.channel_max": 16,
    "train.lafite.discriminator.channel_base": 256,
    "train.lafite.discriminator.channel_max": 16,
    "monitoring.log_interval_images": 16,
    "monitoring.sample_interval_images": 32,
    "monitoring.checkpoint_interval_images": 32,
    "monitoring.samples_per_prompt": 2,
    "evaluate.num_generated": 40,
    "evaluate.retrieval_candidates": 10,
    "evaluate.num_concepts": 10,
    "evaluate.samples_per_concept": 1,
    "evaluate.feature_spaces": [],
    "evaluate.path_length_samples": 0,
    "evaluate.nearest_pictures": 2,
    "evaluate.grid_prompts": 2,
    "evaluate.grid_samples": 2,
    "register.model_name": "tiny",
    "pretrain_mapper.steps": 4,
    "pretrain_mapper.batch_size": 8,
    "pretrain_mapper.hidden_dim": 8,
}
STAGES = ("ingest", "features", "train", "evaluate", "report")
CODE = (
    "src",
    "pipelines",
    "profiles",
    "dvc.yaml",
    "recipes",
    ".dvc",
    ".dvcignore",
    "data",
    "mlruns",
)


@dataclass(frozen=True)
class Clone:
    """A git repository with the project's code and tiny parameters."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def git(self, *command: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        return subprocess.run(
            ["git", *who, *command], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def load_lock(self) -> dict[str, Any]:
        lock = (self.root / "dvc.lock").read_text(encoding="utf-8")
        return dict(YAML(typ="safe", pure=True).load(lock))


def copy_project(root: Path) -> Clone:
    """The files that git would clone, with tiny parameters, committed."""
    root.mkdir()
    for name in CODE:
        source, target = ROOT / name, root / name
        if source.is_file():
            shutil.copyfile(source, target)
            continue
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", name]
        files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for file in files.splitlines():
            if (ROOT / file).exists():
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / file, root / file)
    (root / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    save_images(root / "own")
    with (root / "params.yaml").open("w") as handle:
        YAML().dump(tree_with(TINY), handle)
    environment = {
        name: value
        for name, value in process_environment(root).items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))
    }
    environment.pop("PYTHONPATH", None)
    apply_environment(root, environment)
    clone = Clone(root, environment | QUIET_PREFECT | {"PYTHONPATH": str(root / "src")})
    clone.git("init", "--quiet")
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "-m", "clone")
    return clone


def save_images(folder: Path) -> None:
    """Small pictures of rectangles, each with a caption of its own."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        pixels = np.full((40, 40, 3), rng.integers(0, 256, 3), np.uint8)
        top, left = rng.integers(2, 20, 2)
        pixels[top : top + 16, left : left + 16] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(f"rectangle number {index}\n")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone in which `dvc repro` alone has run everything."""
    made = copy_project(tmp_path_factory.mktemp("clone") / "project")
    made.run("dvc", "repro")
    yield made


def _list_run(done: subprocess.CompletedProcess[str]) -> set[str]:
    lines = done.stdout.splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


@pytest.mark.slow
class TestClone:
    def test_repro_leaves_git_clean_and_every_output_in_place(self, clone: Clone) -> None:
        changed = {line.split()[-1] for line in clone.git("status", "--porcelain").splitlines()}
        assert changed <= {"dvc.lock"}
        for stage in clone.load_lock()["stages"].values():
            for out in stage["outs"]:
                assert (clone.root / out["path"]).exists()
        run_id = json.loads((clone.root / "data/training/mlflow.json").read_text())["run_id"]
        assert run_id

    def test_an_unchanged_project_only_looks_at_source_and_settings(self, clone: Clone) -> None:
        before = clone.load_lock()
        done = clone.run("dvc", "repro")
        assert _list_run(done) == {"scan", "settings"}
        assert clone.load_lock() == before

    def test_a_recipe_runs_by_its_own_target_alone(self, clone: Clone) -> None:
        target, mapper = "recipes/dvc.yaml:pretrain_mapper", clone.root / "data" / "mapper"
        assert not mapper.exists(), "`dvc repro` ran it"
        clone.run("dvc", "checkout")  # misses nothing although no recipe was ever run
        assert _list_run(clone.run("dvc", "repro", target)) == {"scan", "settings", target}
        assert (mapper / "mapper.safetensors").exists()
        for again in ([target], []):
            assert _list_run(clone.run("dvc", "repro", *again)) == {"scan", "settings"}
        (clone.root / "recipes" / "dvc.lock").unlink()
        shutil.rmtree(mapper)

    def test_new_dates_of_the_same_images_repeat_nothing(self, clone: Clone) -> None:
        for path in (clone.root / "own").iterdir():
            path.touch()
        assert _list_run(clone.run("dvc", "repro")) == {"scan", "settings"}

    def test_metrics_and_plots_are_shown(self, clone: Clone) -> None:
        shown = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)
        files = shown[""]["data"]
        assert "trained" in files["data/evaluation/metrics/fd_efficientnet_lite0.json"]["data"]
        table = clone.run("dvc", "metrics", "show").stdout.splitlines()
        assert len(table) == 1 + len(files)
        assert max(map(len, table)) <= 110, "a table that fits a terminal"
        clone.run("dvc", "plots", "show")
        page = (clone.root / "dvc_plots" / "index.html").read_text()
        assert "samples.png" in page
        assert "http" not in page.replace("http://www.w3.org", ""), "blank without a network"
        shutil.rmtree(clone.root / "dvc_plots")

    def test_monitoring_retrains_nothing_and_evaluation_does_not_train(self, clone: Clone) -> None:
        saved = (clone.root / "params.yaml").read_bytes()
        unread = {
            "ingest.jpeg_quality": 60,
            "train.device": "cpu",
            "train.galip.losses.ma_gp_weight": 3.0,
            "train.augmentation.ada_kimg": 7.0,
            "evaluate.device": "cpu",
        }
        always = {"scan", "settings"}
        for changes, expected in (
            ({"monitoring.keep_checkpoints": 5}, always),
            (unread, always),
            ({"evaluate.seed": 5}, always | {"evaluate", "report"}),
            ({"train.seed": 5}, always | {"train", "evaluate", "report"}),
        ):
            with (clone.root / "params.yaml").open("w") as handle:
                YAML().dump(tree_with(TINY | changes), handle)
            # `clipgan status` looks at params.yaml itself; DVC at what the stage wrote.
            status = clone.run("clipgan", "status").stdout
            assert {n for n in STAGES if f"{n:10} to do" in status} == expected - always
            # In a dry run DVC does not see what depends on a result that is still to come.
            later = {"evaluate"} if "train" in expected else set()
            later |= {"report"} & expected
            assert _list_run(clone.run("dvc", "repro", "--dry")) == expected - later
        (clone.root / "params.yaml").write_bytes(saved)
        assert "train.seed" not in clone.run("dvc", "params", "diff").stdout

    def test_experiments_with_unread_parameters_train_nothing(self, clone: Clone) -> None:
        clone.git("add", "--all")
        clone.git("commit", "--quiet", "--allow-empty", "-m", "lock")
        unread = "train.galip.losses.ma_gp_weight=3.0"
        done = clone.run("dvc", "exp", "run", "--set-param", unread, "--name", "unread")
        assert _list_run(done) == {"scan", "settings"}
        assert "ma_gp_weight" in clone.run("dvc", "params", "diff").stdout
        clone.git("checkout", "--quiet", "--", ".")

    def test_the_flow_adopts_what_repro_did_and_registers_it_once(
        self, clone: Clone, prefect_server: str
    ) -> None:
        clone.environment["PREFECT_API_URL"] = prefect_server
        first = clone.run("pipelines", "train").stdout
        for stage in STAGES:
            assert f"{stage}  unchanged" in first
        assert "tiny version 1, challenger (no champion): version 1 stays challenger" in first
        second = clone.run("pipelines", "train").stdout
        assert "register  unchanged" in second
        status = clone.run("clipgan", "status").stdout
        assert status.count("up to date") == len(STAGES)
        assert "tiny version 1, challenger (no champion)" in status

    def test_the_run_cache_brings_model_and_run_id_back_together(self, clone: Clone) -> None:
        lock = clone.load_lock()
        run_file = clone.root / "data" / "training" / "mlflow.json"
        run_id = run_file.read_bytes()
        shutil.rmtree(clone.root / "data" / "training")
        done = clone.run("dvc", "repro", "train")
        assert "Running stage 'train'" not in done.stdout
        assert run_file.read_bytes() == run_id
        assert clone.load_lock() == lock

    def test_experiments_run_with_other_parameters(self, clone: Clone) -> None:
        clone.git("add", "--all")
        clone.git("commit", "--quiet", "--allow-empty", "-m", "lock")
        clone.run("dvc", "exp", "run", "--set-param", "evaluate.seed=9", "--name", "nine")
        assert "nine" in clone.run("dvc", "exp", "list", "--name-only").stdout
        params = YAML(typ="safe", pure=True).load((clone.root / "params.yaml").read_text())
        assert params["evaluate"]["seed"] == 9
        clone.git("checkout", "--quiet", "--", ".")

    def test_ctrl_c_while_training_goes_on_in_the_same_run(
        self, clone: Clone, prefect_server: str
    ) -> None:
        clone.environment["PREFECT_API_URL"] = prefect_server
        with (clone.root / "params.yaml").open("w") as handle:
            YAML().dump(tree_with(TINY | {"train.total_images": 640, "train.seed": 1}), handle)
        work = clone.root / "data" / ".work" / "train"
        flow = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "train"],
            cwd=clone.root,
            env=clone.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # The checkpoint of 0 images is there before the first step.
        wait_until(lambda: any(work.glob("*/checkpoints/checkpoint-*[1-9]*")), seconds=PATIENCE)
        flow.send_signal(signal.SIGINT)
        output, _ = flow.communicate(timeout=PATIENCE)
        assert flow.returncode == 130, output
        (run_file,) = work.glob("*/mlflow.json")
        run_id = json.loads(run_file.read_text())["run_id"]

        done = clone.run("pipelines", "train")
        training = clone.root / "data" / "training"
        assert json.loads((training / "mlflow.json").read_text())["run_id"] == run_id
        assert json.loads((training / "training.json").read_text())["resumed_from"] > 0
        assert "tiny version" in done.stdout
        assert not any(work.iterdir())


@pytest.mark.slow
def test_an_experiment_in_a_copy_runs_its_own_tree(tmp_path: Path) -> None:
    """Trap 19: an installed package, or an absolute PYTHONPATH, runs the original's code."""
    original = copy_project(tmp_path / "project")
    # Only the look at the source; a change that nobody commits shows which tree it came from.
    dvc_yaml = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())
    pipeline = {"stages": {"scan": dvc_yaml["stages"]["scan"]}}
    with (original.root / "dvc.yaml").open("w") as handle:
        YAML().dump(pipeline, handle)
    module = original.root / "src" / "clipgan" / "stages" / "scan.py"
    module.write_text(module.read_text() + "\nprint('code of', __file__)\n")
    original.git("add", "--all")
    original.git("commit", "--quiet", "-m", "say")
    done = original.run("dvc", "exp", "run", "--temp")
    said = [line for line in done.stdout.splitlines() if line.startswith("code of")]
    assert said
    assert f"{original.root}/.dvc/tmp/exps" in said[0]
