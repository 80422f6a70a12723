from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inputs import SpaceInputs
from clipgan.evaluation.spaces.extraction import FeatureCollector, SpaceFeatures
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace, find_space
from clipgan.evaluation.spaces.inception import (
    TENSORFLOW_URL,
    TORCHVISION_URL,
    TensorFlowInception,
    TorchvisionInception,
    WeightsFile,
    find_hub_weights,
    resize_as_tensorflow,
)
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.values import MetricValue
from tests.metric_values import compute_values
from tests.unit.evaluation.fidelity import find_tolerances
from tests.unit.evaluation.inception_weights import save_inception, save_torchvision_inception

CPU = torch.device("cpu")
WEIGHTS_NAME = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture
def weights_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path: Path = tmp_path / "hub" / "checkpoints" / WEIGHTS_NAME
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_inception(tmp_path_factory.mktemp("weights") / WEIGHTS_NAME)


def draw_images(count: int, side: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 4, 4, generator=generator) * 255
    return torch.nn.functional.interpolate(small, size=side, mode="bilinear").to(torch.uint8)


def test_absent_weights_give_one_line_with_place_and_source(weights_path: Path) -> None:
    for url in (TENSORFLOW_URL, TORCHVISION_URL):
        reason = find_hub_weights(url)
        assert isinstance(reason, str)
        assert str(weights_path.parent) in reason
        assert "https://" in reason
        assert "\n" not in reason


def test_damaged_weights_are_refused_with_the_fix(weights_path: Path) -> None:
    weights_path.write_bytes(b"cut off")
    with pytest.raises(EvaluationError, match=r"damaged.*not 6726825d.*remove it and put https"):
        find_hub_weights(TENSORFLOW_URL)


def test_weights_with_the_named_hash_are_found(
    weights_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_path.write_bytes(b"whole")
    monkeypatch.setattr(
        "clipgan.evaluation.spaces.inception.hash_file", lambda _: "6726825d" + "0" * 56
    )
    assert find_hub_weights(TENSORFLOW_URL) == WeightsFile(weights_path, "6726825d" + "0" * 56)
    assert isinstance(find_hub_weights(TORCHVISION_URL), str)


@pytest.mark.parametrize("side", [16, 64, 299, 400])
def test_resize_is_torch_fidelitys(side: int) -> None:
    images = draw_images(2, side, 0)[..., : side - 3].float()
    theirs = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    torch.testing.assert_close(resize_as_tensorflow(images, 299), theirs, rtol=0, atol=1e-3)


def test_features_are_torch_fidelitys(inception_file: Path) -> None:
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(inception_file),
    )
    images = draw_images(3, 40, 0)
    with torch.inference_mode():
        expected = theirs(images)
        found = TensorFlowInception(inception_file)(images)
    for ours, wanted in zip(found, expected, strict=True):
        scale = float(wanted.abs().max())
        assert scale > 0.1, "these weights say nothing about agreement"
        assert float((ours - wanted).abs().max()) < 1e-3 * scale


@pytest.mark.slow
def test_values_are_those_of_torch_fidelitys_command_line(
    inception_file: Path, tmp_path: Path
) -> None:
    # More images than the 64 dimensions of this layer: with fewer, torch-fidelity's root of a
    # rank-deficient product is off by some 1e-6 itself (test_frechet.py shows which is right).
    images = [draw_images(70, 24, seed) for seed in (0, 1)]
    folders = [save_images(tmp_path / str(n), part) for n, part in enumerate(images)]
    command = [f"--input{n}={folder}" for n, folder in enumerate(folders, 1)]
    for metric in ("fid", "kid", "prc"):
        command += [f"--{metric}", f"--feature-layer-{metric}=64"]
    # One subset of all images is the estimator that ours is.
    command += ["--kid-subset-size=70", "--kid-subsets=1", "--prc-neighborhood=2"]
    theirs = run_torch_fidelity(inception_file, *command)

    found, features = measure_as_torch_fidelity(inception_file, "64", images)
    tolerances = find_tolerances(*features)
    for kind, name, key in (
        ("fd", "fid", "frechet_inception_distance"),
        ("kid", "kid", "kernel_inception_distance_mean"),
        ("precision", "precision", "precision"),
        ("recall", "recall", "recall"),
    ):
        value = found[name].value
        assert value == pytest.approx(theirs[key], abs=tolerances[kind]), name


@pytest.mark.slow
def test_the_inception_score_is_that_of_torch_fidelitys_command_line(
    inception_file: Path, tmp_path: Path
) -> None:
    images = draw_images(12, 24, 0)
    folder = save_images(tmp_path / "images", images)
    theirs = run_torch_fidelity(inception_file, f"--input1={folder}", "--isc")
    found, _ = measure_as_torch_fidelity(inception_file, "2048", [images, images])
    score = found["inception_score"]
    assert score.value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert score.standard_deviation == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def save_images(folder: Path, images: Tensor) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:03d}.png")
    return folder


def run_torch_fidelity(weights: Path, *arguments: str) -> dict[str, float]:
    options = ["--feature-extractor=inception-v3-compat", "--cpu", "--json", "--no-cache"]
    options.append(f"--feature-extractor-weights-path={weights}")
    command = [sys.executable, "-m", "torch_fidelity.fidelity", *options, *arguments, "--silent"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def measure_as_torch_fidelity(
    weights: Path, layer: str, images: Sequence[Tensor]
) -> tuple[dict[str, MetricValue], list[Tensor]]:
    """All that comes after the extractor is ours; the extractor is torch-fidelity's.

    Returns:
        The metrics, and the features they were computed from.
    """
    layers = [layer] if layer == "64" else [layer, "logits_unbiased"]
    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat", layers, feature_extractor_weights_path=str(weights)
    )

    def encode(part: Tensor) -> tuple[Tensor, Tensor | None]:
        features, *logits = extractor(part)
        return features, (logits[0] if logits else None)

    space = FeatureSpace("inception-tf", "", "x", "0", "x", encode)
    features = [collect(space, part) for part in images]
    inputs = SpaceInputs(
        space=space,
        grouping=Grouping(len(images[0]), 6, 0),
        generated=features[0],
        reference=features[1],
        neighbourhood=2,
    )
    found = compute_values(inputs)
    return found, [part.plain for part in features]


def collect(space: FeatureSpace, images: Tensor) -> SpaceFeatures:
    collector = FeatureCollector(space, (), batch_size=64, device=CPU)
    collector.add(images)
    return collector.collect("images")


def test_the_three_inceptions_differ_in_resize_and_range(
    inception_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {TORCHVISION_URL: save_torchvision_inception(tmp_path / "torchvision.pth")}
    monkeypatch.setattr(
        "clipgan.evaluation.spaces.feature_spaces.find_hub_weights",
        lambda url: WeightsFile(files.get(url, inception_file), "x"),
    )
    images = draw_images(2, 20, 0)
    found = {}
    for spec in ("inception-tf", "inception-clean", "inception-torchvision"):
        space = find_space(spec, CPU, None)
        assert isinstance(space, FeatureSpace)
        with torch.inference_mode():
            found[space.name_metric("fd")] = space.encode(images)[0]
    assert {name: tuple(f.shape) for name, f in found.items()} == dict.fromkeys(
        ("fid", "fid_clean", "fd_inception_torchvision"), (2, 2048)
    )
    assert not torch.allclose(found["fid"], found["fid_clean"], rtol=1e-3)


def test_galips_network_reads_unit_pixels_as_normalised(tmp_path: Path) -> None:
    network = TorchvisionInception(save_torchvision_inception(tmp_path / "w.pth"))
    seen: list[Tensor] = []
    network.network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, inputs: seen.append(*inputs))
    with torch.inference_mode():
        network(torch.full((1, 3, 299, 299), 255, dtype=torch.uint8))
    # x * std / 0.5 + (mean - 0.5) / 0.5 of a white pixel, x = 1.
    means, deviations = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = [d / 0.5 + (m - 0.5) / 0.5 for m, d in zip(means, deviations, strict=True)]
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)
