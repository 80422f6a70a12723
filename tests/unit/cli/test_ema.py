"""`clipgan ema` on a bundle for the built-in CLIP: what draws afterwards, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from clipgan.cli.app import app
from clipgan.models.bundle import load_bundle
from clipgan.training.power_averages import SNAPSHOTS_FOLDER, PowerAverages
from tests.params import params_with
from tests.unit.cli.commands import run_clipgan
from tests.unit.cli.test_generate import save_for_built_in_clip

TRAINING = {
    "train.batch_size": 8,
    "train.total_images": 256,
    "train.ema.snapshot_interval_images": 32,
}


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose generator wandered for 32 steps, with 8 snapshots."""
    folder = save_for_built_in_clip(tmp_path_factory.mktemp("models") / "training")
    generator = load_bundle(folder).generator
    averages = PowerAverages(generator, params_with(TRAINING).train, folder / SNAPSHOTS_FOLDER)
    draws = torch.Generator().manual_seed(0)
    for images_seen in range(0, 256, 8):
        with torch.no_grad():
            for weight in generator.parameters():
                weight.add_(0.01 * torch.randn(weight.shape, generator=draws))
        averages.update(generator, images_seen)
    return folder


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_each_length_is_a_model_that_draws(training: Path, tmp_path: Path) -> None:
    made = call("ema", "0.03", "0.1", "0.03", "--model", training, "--out", tmp_path / "ema")
    assert made.exit_code == 0, made.output
    assert re.findall(r"sigma-(\S+): (\S+)% off its length, 8 snapshots", made.output) == [
        ("0.03", "10.09"),
        ("0.1", "0.00"),
    ]
    pictures = []
    for name in ("sigma-0.03", "sigma-0.1"):
        out = tmp_path / f"{name}.png"
        drawn = call("generate", "a red apple", "--model", tmp_path / "ema" / name, "--out", out)
        assert drawn.exit_code == 0, drawn.output
        pictures.append(out.read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0.05", "--model", "built-in-like"], "built-in-like: no bundle.json"),
        (["0.5", "--model", "TRAINING"], "averaging length 0.5: give a share of the training"),
        (["0.05", "--model", "TRAINING", "--out", "taken"], "--out taken: taken is a file"),
    ],
)
def test_mistakes_get_one_line(
    training: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "taken").touch()
    given = [str(training) if argument == "TRAINING" else argument for argument in arguments]
    done = run_clipgan("ema", *given, folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "ema").exists()


def test_a_model_without_snapshots_is_told_how_to_get_them(tmp_path: Path) -> None:
    save_for_built_in_clip(tmp_path / "plain")
    done = run_clipgan("ema", "0.05", "--model", "plain", folder=tmp_path)
    assert done.returncode != 0
    assert done.stderr.strip().endswith(
        "plain: no snapshots of its averages (ema_snapshots/), so its averaging length is fixed; "
        "set train.ema.snapshot_interval_images and train again"
    )
    assert not (tmp_path / "ema").exists()
