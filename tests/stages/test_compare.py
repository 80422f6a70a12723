"""Models by address on the tiny world: bundles, checkpoints, registered versions and runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from clipgan.cli.evaluation import compare_subjects
from clipgan.config import Params
from clipgan.errors import CheckpointError, EvaluationError, RegistryError
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.families.lafite.training.start import build_lafite_networks
from clipgan.metrics.comparison import compare_models
from clipgan.metrics.evaluations import Evaluation, load_evaluation
from clipgan.models.bundle import BundleInfo, save_bundle
from clipgan.models.modality_gap import ModalityMeans
from clipgan.resume_state import has_waiting
from clipgan.run_logger import NULL_LOGGER, RunLogger
from clipgan.stages.compare import measure_models
from clipgan.stages.model_sources import ModelLoader
from clipgan.stages.runs import send_waiting
from clipgan.tracking.mlflow_store import open_client
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.run_contexts import continue_run
from clipgan.tracking.spool import find_spools
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.checkpoint_export import build_metadata
from clipgan.workspace import Workspace
from tests.metric_values import value_of
from tests.mlflow_stores import register_values
from tests.stages.test_evaluate import (
    CHANGES,
    RecordingLogger,
    build_generator,
    run,
    save_training,
)
from tests.stages.tiny_training import SIDE_PX, TinyClip, build_world, tiny_params
from tests.unit.tracking.tiny_sampler import LOADER

FD = "fd_efficientnet_lite0"
CLIP = TinyClip().fingerprint
MEANS = ModalityMeans(image=torch.arange(6.0) / 9, text=-torch.arange(6.0) / 9)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    save_training(root)
    return root


@pytest.fixture(autouse=True)
def _tiny_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models name a CLIP that open_clip does not know."""
    for name in (
        "clipgan.stages.model_sources.load_matching_clip",
        "clipgan.clip.encoder.load_clip",
    ):
        monkeypatch.setattr(name, lambda *_, **__: TinyClip())
    yield


def measure(
    root: Path,
    *addresses: str,
    changes: dict[str, Any] | None = None,
    uri: str = "",
    logger: RunLogger = NULL_LOGGER,
) -> Evaluation:
    params: Params = tiny_params(CHANGES | (changes or {}))
    loader = ModelLoader(
        params,
        images=root / "images",
        features=root / "features",
        tracking_uri=uri,
    )
    return measure_models(
        params.evaluate,
        addresses,
        protocols=params.evaluate.protocols,
        loader=loader,
        images=root / "images",
        output=root / "compared",
        cache=root / "cache",
        logger=logger,
    )


def numbers(evaluation: Evaluation, model: str) -> dict[str, float]:
    return {name: value.value for name, value in evaluation.values[model].items()}


def test_a_bundle_has_the_values_of_the_evaluate_stage(world: Path) -> None:
    stage = run(world, {"evaluate.compare_initial": False})
    report = measure(world, str(world / "training"))
    assert numbers(report, "trained") == stage.values["trained"]
    assert compare_models(report.values, report.baseline) == []
    assert {"evaluation.json", "metrics", "report.md", "report.html", "nearest.png"} <= {
        path.name for path in (world / "compared").iterdir()
    }
    assert load_evaluation(world / "compared") == report


def test_two_models_are_compared_in_pairs(world: Path) -> None:
    logger = RecordingLogger()
    first, second = str(world / "training" / "initial"), str(world / "training")
    report = measure(world, first, second, logger=logger)
    found = {comparison.metric: comparison for comparison in compare_models(report.values, first)}
    assert set(found) == set(numbers(report, first))
    fd = found[FD]
    paired = fd.paired
    assert paired is not None
    expected = numbers(report, second)[FD] - numbers(report, first)[FD]
    assert paired.difference == pytest.approx(expected)
    assert paired.low < paired.difference < paired.high
    assert (fd.model, fd.baseline) == (second, first)
    tree = json.loads((world / "compared" / "comparison.json").read_text())
    assert tree["models"] == [first, second]
    assert "comparison/report.html" in logger.files
    page = (world / "compared" / "report.html").read_text()
    assert "Paired comparisons" in page


def test_what_a_comparison_logs_waits_apart_from_the_pipelines_until_it_is_sent(
    world: Path, tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Workspace(tmp_path / "project")
    project.root.mkdir()
    (project.root / "dvc.yaml").touch()
    with project.params_file.open("w") as handle:
        YAML().dump(tiny_params(CHANGES).model_dump(mode="json", by_alias=True), handle)
    for name in ("images", "features"):
        shutil.copytree(world / name, project.root / "data" / name)
    monkeypatch.chdir(project.root)
    models = (str(world / "training" / "initial"), str(world / "training"))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    compare_subjects(models, (), Path("compared"))
    (waiting,) = find_spools(project.work("train").parent)
    assert waiting.parent == project.root / "data" / ".work" / "comparisons"
    # An evaluation of the pipeline clears what is sent of its own, and nothing else.
    with continue_run(
        "run", tracking_uri=tracking_uri, experiment="test", work=project.work("tracking")
    ) as logger:
        logger.log_metrics({"distance": 1.0}, 0)
    assert has_waiting(waiting)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    assert send_waiting(project) == 1
    assert not waiting.exists()
    compare_subjects(models, (), Path("compared"))
    assert not list(waiting.parent.iterdir()), "what was sent at once is removed too"
    client = open_client(tracking_uri)
    experiment = client.get_experiment_by_name(tiny_params().register_model.model_name)
    found = client.search_runs([experiment.experiment_id])
    assert [each.info.status for each in found] == ["FINISHED", "FINISHED"]
    for each in found:
        files = {file.path for file in client.list_artifacts(each.info.run_id, "comparison")}
        assert "comparison/report.html" in files


def test_a_checkpoint_is_measured_like_the_bundle_of_the_same_weights(world: Path) -> None:
    bundle = world / "bundle"
    networks = build_lafite_networks(tiny_params().train, TinyClip.embed_dim)
    metadata = build_metadata(
        networks, family="lafite", clip=CLIP, initial_images_seen=0, training="t", means=MEANS
    )
    store = CheckpointStore(world / "checkpoints", keep=2, fingerprint="t", metadata=metadata)
    state = {name: dict(network.state_dict()) for name, network in vars(networks).items()}
    folder = store.save(96, {"seed": 0}, state)
    info = BundleInfo("lafite", CLIP, SIDE_PX, 96)
    save_bundle(bundle, networks.generator_ema, None, info, dtype="fp32", means=MEANS)
    report = measure(world, str(bundle), str(folder))
    assert numbers(report, str(folder)) == numbers(report, str(bundle))
    for comparison in compare_models(report.values, report.baseline):
        assert comparison.paired is not None
        assert (comparison.paired.difference, comparison.paired.p_value) == (0.0, 1.0)
    path = folder / "generator_ema.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(CheckpointError, match=r"generator_ema\.safetensors"):
        measure(world, str(folder))


def test_registered_versions_and_runs_are_found(world: Path, tracking_uri: str) -> None:
    config = tiny_params({"register.model_name": "tiny", "register.gate_metric": "fd"})
    package = GeneratorPackage(world / "training", LOADER)
    entries = {"fd": value_of("fd", 1.0)}
    registered = register_values(config.register_model, package, tracking_uri, entries)
    version, run_address = "models:/tiny@challenger", f"runs:/{registered.run_id}"
    report = measure(world, version, run_address, uri=tracking_uri)
    assert numbers(report, version) == numbers(report, run_address)
    with pytest.raises(RegistryError, match="runs:/nothing: no registered version"):
        measure(world, "runs:/nothing", uri=tracking_uri)


@pytest.mark.parametrize(
    ("addresses", "error", "reason"),
    [
        (["{training}", "{training}"], EvaluationError, "stands there twice"),
        (["nowhere"], CheckpointError, "nowhere: no generator bundle or checkpoint there"),
        (["{training}", "{large}"], EvaluationError, "of different sizes cannot share"),
    ],
)
def test_mistakes(world: Path, addresses: list[str], error: type[Exception], reason: str) -> None:
    large = world / "large"
    if not large.exists():
        generator = LafiteGenerator(
            **{**build_generator(tiny_params(), 1).architecture, "resolution_px": 2 * SIDE_PX}
        )
        info = BundleInfo("lafite", CLIP, 2 * SIDE_PX, 0)
        save_bundle(large, generator, None, info, dtype="fp32")
    named = [a.format(training=world / "training", large=large) for a in addresses]
    with pytest.raises(error, match=reason):
        measure(world, *named)


def test_models_are_judged_in_the_precision_of_the_evaluate_stage(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(fingerprint: Any, weights: Any, device: Any, precision: str) -> TinyClip:
        asked.append(precision)
        return TinyClip()

    monkeypatch.setattr("clipgan.stages.model_sources.load_matching_clip", load)
    for precision in ("bf16", "fp32"):
        loader = ModelLoader(
            tiny_params({"features.precision": precision}),
            images=world / "images",
            features=world / "features",
            tracking_uri="",
        )
        loader.load(str(world / "training"))
    assert asked == ["bf16", "fp32"]
