"""Post-hoc EMA from a training to generators: snapshots, resume, lengths, the command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from clipgan.artifacts import hash_file
from clipgan.cli.app import app
from clipgan.config import Params
from clipgan.errors import CheckpointError
from clipgan.metrics.evaluations import load_evaluation
from clipgan.models.bundle import load_bundle
from clipgan.stages.averaging_lengths import write_averaging_lengths
from clipgan.stages.pretrain_generator import pretrain_generator
from clipgan.training import power_averages
from clipgan.training.power_averages import SNAPSHOTS_FOLDER, PowerAverages
from clipgan.workspace import Workspace
from tests.stages.test_evaluate import CHANGES as EVALUATED
from tests.stages.tiny_galip import CHANGES as GALIP
from tests.stages.tiny_training import (
    SIDE_PX,
    TinyClip,
    build_world,
    choose_clip,
    hash_training,
    run_training,
    single_thread,
    tiny_params,
)

pytestmark = pytest.mark.usefixtures("stable_code", "one_thread")

INTERVAL = "train.ema.snapshot_interval_images"
FAMILIES: dict[str, dict[str, Any]] = {"lafite": {}, "galip": GALIP}


def params_of(family: str, changes: dict[str, Any] | None = None) -> Params:
    return tiny_params({**FAMILIES[family], INTERVAL: 8, **(changes or {})})


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def world(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features and an uninterrupted training with a snapshot of each of its 12 steps."""
    root = tmp_path_factory.mktemp("world")
    build_world(root, clip=choose_clip(params_of(family)))
    with single_thread():
        run_training(root, params_of(family))
    return root


def hash_snapshots(training: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in (training / SNAPSHOTS_FOLDER).iterdir()}


def read_average(training: Path, sigma: float, images_seen: int = 96) -> dict[str, Tensor]:
    """A stored average in fp32, with the buffers beside it."""
    stored = load_file(training / SNAPSHOTS_FOLDER / f"images-{images_seen:012d}.safetensors")
    found = {}
    for key, tensor in stored.items():
        prefix, _, name = key.partition("/")
        if prefix in (str(sigma), "buffers"):
            found[name] = tensor.float()
    return found


def measure_distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return float(sum(((a[name] - b[name]) ** 2).sum() for name in a)) ** 0.5


def test_snapshots_change_no_bit_of_the_training(copy: Path, world: Path, family: str) -> None:
    run_training(copy, params_of(family, {INTERVAL: 0}))
    assert hash_training(copy / "training") == hash_training(world / "training")
    assert not (copy / "training" / SNAPSHOTS_FOLDER).exists()
    assert not list(copy.glob("work/train/*/checkpoints/*/power_averages.safetensors"))


def test_there_is_one_every_interval_and_one_of_the_end(copy: Path, family: str) -> None:
    run_training(copy, params_of(family, {INTERVAL: 36}))
    assert sorted(hash_snapshots(copy / "training")) == [
        f"images-{seen:012d}.safetensors" for seen in (40, 72, 96)
    ]


def test_killed_after_every_step_it_keeps_the_same_snapshots(
    copy: Path, world: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deaths after the snapshot of a step and before its checkpoint, of which every other step has
    one."""

    class Killed(BaseException):
        pass

    update, died = PowerAverages.update, set()

    def update_then_die(averages: PowerAverages, generator: Any, images_seen: int) -> None:
        update(averages, generator, images_seen)
        if images_seen not in died:
            died.add(images_seen)
            raise Killed

    monkeypatch.setattr(PowerAverages, "update", update_then_die)
    while not (copy / "training").exists():
        try:
            run_training(copy, params_of(family))
        except Killed:
            continue
    assert len(died) == 12
    assert hash_snapshots(copy / "training") == hash_snapshots(world / "training")
    assert hash_training(copy / "training") == hash_training(world / "training")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_length_from_snapshots_is_the_length_tracked_in_training(
    copy: Path, family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """.07 out of snapshots of .05 and .10, against the same training that tracked .07 itself.

    In so short a training the lengths differ by little more than fp16 can tell: beside the bound
    for the weights themselves, fp32 shows what the reconstruction alone leaves.
    """
    monkeypatch.setattr(power_averages, "DTYPE", dtype)
    run_training(copy, params_of(family))
    run_training(
        copy, params_of(family, {"train.ema.snapshot_sigmas": [0.07, 0.1]}), output="other"
    )
    tracked = read_average(copy / "other", 0.07)
    (written,) = write_averaging_lengths(copy / "training", [0.07], copy / "ema")
    bundle = load_bundle(copy / "ema" / "sigma-0.07")
    assert bundle.discriminator is not None
    gap = measure_distance(dict(bundle.generator.state_dict()), tracked)
    assert gap < 5e-4 * measure_distance(tracked, {name: torch.zeros(()) for name in tracked})
    if dtype == torch.float32:
        nearest = min(
            measure_distance(read_average(copy / "training", sigma), tracked)
            for sigma in (0.05, 0.1)
        )
        assert gap < 0.02 * nearest
    assert written.error == bundle.info.provenance["ema"]["error"] < 0.01
    assert written.num_snapshots == 12


def test_a_warm_ups_generator_keeps_those_of_its_last_resolution(copy: Path, family: str) -> None:
    params = params_of(
        family,
        {
            "pretrain_generator.resolutions_px": [SIDE_PX],
            "pretrain_generator.images": [32],
            "pretrain_generator.learning_rates": [0.001],
            "pretrain_generator.batch_size": 8,
            "train.latent_codes": 0,
        },
    )
    pretrain_generator(
        params.pretrain_generator,
        train_config=params.train,
        monitoring=params.monitoring,
        features_config=params.features,
        images=copy / "images",
        features=copy / "features",
        output=copy / "generator",
        work=copy / "generator-work",
        clip=choose_clip(params),  # type: ignore[arg-type]
    )
    (written,) = write_averaging_lengths(copy / "generator", [0.05], copy / "ema")
    assert written.num_snapshots == 4


def test_stored_lengths_come_out_as_they_were_stored(copy: Path, world: Path) -> None:
    write_averaging_lengths(world / "training", [0.05, 0.1], copy / "ema")
    for sigma in (0.05, 0.1):
        weights = load_bundle(copy / "ema" / f"sigma-{sigma}").generator.state_dict()
        for name, value in read_average(world / "training", sigma).items():
            assert torch.allclose(weights[name], value, rtol=1e-4, atol=1e-6), name


def test_a_damaged_snapshot_is_named(copy: Path, world: Path) -> None:
    shutil.copytree(world / "training", copy / "training")
    path = max((copy / "training" / SNAPSHOTS_FOLDER).iterdir())
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=rf"{path.name}: cannot be read .*dvc checkout"):
        write_averaging_lengths(copy / "training", [0.07], copy / "ema")


def test_weights_beyond_fp16_are_refused_by_name(tmp_path: Path) -> None:
    averages_of = params_of("lafite").train
    generator = torch.nn.Linear(2, 2)
    with torch.no_grad():
        generator.weight.fill_(1e5)
    averages = PowerAverages(generator, averages_of, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"weight 0\.05/weight is too large for fp16"):
        averages.update(generator, 0)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["lafite"], indirect=True)
def test_the_command_evaluates_lengths_as_a_curve(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "clipgan.stages.model_sources.load_matching_clip",
        "clipgan.clip.encoder.load_clip",
    ):
        monkeypatch.setattr(name, lambda *_, **__: TinyClip())
    project = Workspace(tmp_path)
    (project.root / "dvc.yaml").touch()
    with project.params_file.open("w") as handle:
        YAML().dump(tiny_params(EVALUATED).model_dump(mode="json", by_alias=True), handle)
    (project.root / "data").mkdir()
    for name in ("images", "features", "training"):
        (project.root / "data" / name).symlink_to(world / name)
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    done = CliRunner().invoke(app, ["ema", "0.1", "0.05", "0.07", "--evaluate"])
    assert done.exit_code == 0, done.output
    models = ["data/training", *(f"ema/sigma-{sigma}" for sigma in (0.05, 0.07, 0.1))]
    values = load_evaluation(Path("ema/evaluation")).values
    assert [name for name in values if name != "real"] == models
    for metric, value in values["ema/sigma-0.07"].items():
        (line,) = [
            x for x in done.output.splitlines() if x.startswith(f"{metric}: ") and "at 0.1" in x
        ]
        assert f"{value.value:.4g} at 0.07" in line
        assert f"{values['data/training'][metric].value:.4g} of data/training" in line
    assert "ema/sigma-0.05: 0.00% off its length, 12 snapshots" in done.output
    assert Path("ema/evaluation/averaging_lengths.png").read_bytes().startswith(b"\x89PNG")
