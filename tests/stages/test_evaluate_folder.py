"""A folder of PNGs against a folder of PNGs, with the real feature extractor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clipgan.errors import EvaluationError
from clipgan.evaluation.spaces.extractors import EfficientNetLite0Extractor
from clipgan.evaluation.study.image_folder import ImageFolder
from clipgan.metrics.evaluations import Evaluation
from clipgan.stages.evaluate_folder import evaluate_folder
from tests.params import params_with
from tests.unit.evaluation.fidelity import find_tolerances, measure_by_fidelity

CHANGES: dict[str, Any] = {
    "evaluate.device": "cpu",
    "evaluate.feature_spaces": [],
    "evaluate.neighbourhood": 2,
    "evaluate.seed": 2020,
}


def draw_images(seed: int, count: int = 12, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 4, 4, generator=generator) * 255
    images: Tensor = torch.nn.functional.interpolate(small, size=side, mode="bilinear")
    return images.to(torch.uint8)


def save_images(folder: Path, seed: int, count: int = 12, side: int = 32) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(draw_images(seed, count, side)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{side}-{number:03d}.png")
    return folder


def run(tmp_path: Path, changes: dict[str, Any] | None = None, **others: Any) -> Evaluation:
    arguments: dict[str, Any] = {
        "generated": tmp_path / "generated",
        "reference": tmp_path / "reference",
        "protocols": ("fd-offline",),
        "cache": tmp_path / "cache",
    }
    params = params_with(CHANGES | (changes or {}))
    return evaluate_folder(params.evaluate, reading=params.ingest, **arguments | others)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    save_images(tmp_path / "generated", 0)
    save_images(tmp_path / "reference", 1)
    return tmp_path


def test_values_are_torch_fidelitys_of_the_same_folders(folders: Path) -> None:
    theirs = measure_by_fidelity(str(folders / "generated"), str(folders / "reference"), 12)
    extractor = EfficientNetLite0Extractor()
    tolerances = find_tolerances(*(extractor(draw_images(seed)).detach() for seed in (0, 1)))
    values = run(folders).values["trained"]
    for kind, key in (
        ("fd", "frechet_inception_distance"),
        ("kid", "kernel_inception_distance_mean"),
        ("precision", "precision"),
        ("recall", "recall"),
    ):
        value = values[f"{kind}_efficientnet_lite0"]
        assert value.value == pytest.approx(theirs[key], abs=tolerances[kind]), kind
        assert value.interval is not None
    protocol = values["fd_efficientnet_lite0"].protocol
    assert (protocol.reference_split, protocol.truncation) == ("files", None)
    assert (protocol.generated_count, protocol.reference_count) == (12, 12)


def test_the_reference_is_extracted_once_and_never_stale(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(folders)
    read: list[str] = []
    original = ImageFolder.iterate

    def iterate(self: ImageFolder, batch_size: int) -> Iterator[Tensor]:
        read.append(self.folder.name)
        return original(self, batch_size)

    monkeypatch.setattr(ImageFolder, "iterate", iterate)
    again = run(folders)
    assert again.values == first.values
    assert set(read) == {"generated"}
    save_images(folders / "reference", 2, count=1)
    changed = run(folders)
    assert "reference" in read
    assert changed.values != first.values


def test_copies_of_the_reference_are_memorised(folders: Path) -> None:
    save_images(folders / "generated", 1)
    values = run(folders).values["trained"]
    assert values["memorised_share_efficientnet_lite0"].value == 1.0
    assert values["fd_efficientnet_lite0"].value == pytest.approx(0.0, abs=1e-3)


def test_mixed_sizes_are_measured_with_a_warning(folders: Path) -> None:
    save_images(folders / "generated", 3, count=4, side=24)
    evaluation = run(folders)
    assert any("images of 2 sizes (32x32: 12, 24x24: 4)" in text for text in evaluation.warnings)
    assert any(
        "biased upwards: compare it only at the same counts, and trust kid_" in text
        for text in evaluation.warnings
    )


def test_sixteen_bits_and_orientation_change_no_value(folders: Path) -> None:
    """The same pictures with 8 bits, with 16, and stored on their sides."""
    paths = sorted((folders / "generated").iterdir())
    pictures = [Image.open(path).convert("L") for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    expected = run(folders)
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(np.asarray(picture).astype(np.uint16) * 257).save(path)
    wide = run(folders)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path, picture in zip(paths, pictures, strict=True):
        picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    turned = run(folders)
    assert wide.values == turned.values == expected.values
    assert any("12 sixteen_bit" in warning for warning in wide.warnings)
    assert any("12 exif_rotated" in warning for warning in turned.warnings)


def test_a_file_that_is_no_image_is_left_out_and_named(folders: Path) -> None:
    expected = run(folders)
    (folders / "generated" / "empty.png").write_bytes(b"")
    found = run(folders)
    assert found.values == expected.values
    text = "1 of 13 files are left out: empty.png (not_an_image: the file is empty)"
    assert any(text in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("changes", "protocols", "reason"),
    [
        ({}, ("fid30k-val",), r"fid30k-val asks for 30,000 generated images, .* has 12: make more"),
        ({}, ("cub",), r"nothing could be measured: weights are not at"),
        ({}, ("fid",), r"protocol 'fid' is unknown"),
    ],
)
def test_mistakes(
    folders: Path,
    changes: dict[str, Any],
    protocols: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folders))
    with pytest.raises(EvaluationError, match=reason):
        run(folders, changes, protocols=protocols)


def test_constant_images_are_refused(folders: Path) -> None:
    flat = Image.new("RGB", (32, 32), "red")
    for path in (folders / "generated").iterdir():
        flat.save(path)
    with pytest.raises(EvaluationError, match="all 12 images look the same"):
        run(folders)
