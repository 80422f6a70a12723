from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.errors import EvaluationError
from clipgan.evaluation.study.image_folder import ImageFolder
from tests.params import params_with

READING = params_with().ingest


def save(path: Path, shape: tuple[int, ...] = (8, 8, 3), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_files_are_read_in_order_and_batches_end_where_the_size_changes(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", seed=number)
    save(tmp_path / "3" / "deep.PNG", (8, 4, 3))
    save(tmp_path / "4.png", seed=4)
    (tmp_path / "notes.txt").write_text("no image")
    folder = ImageFolder(tmp_path, READING)
    assert folder.names == ["0.png", "1.png", "2.png", "3/deep.PNG", "4.png"]
    shapes = [tuple(batch.shape) for batch in folder.iterate(2)]
    assert shapes == [(2, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 4), (1, 3, 8, 8)]
    (warning,) = folder.list_warnings()
    assert "2 sizes (8x8: 4, 4x8: 1)" in warning


def test_the_name_is_the_content(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        save(tmp_path / folder / f"{folder}.png", seed=seed)
    a, b, c = (ImageFolder(tmp_path / name, READING) for name in "abc")
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert a.list_warnings() == []


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (8, 8, 3)])
def test_gray_and_transparent_files_become_rgb(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save(tmp_path / "x.png", shape)
    (image,) = next(ImageFolder(tmp_path, READING).iterate(1))
    assert image.shape == (3, 8, 8)
    assert image.dtype == torch.uint8


def test_empty_missing_and_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="nowhere: no such folder"):
        ImageFolder(tmp_path / "nowhere", READING)
    with pytest.raises(EvaluationError, match="holds no image"):
        ImageFolder(tmp_path, READING)
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(
        EvaluationError, match=r"no usable image; b\.png .not_an_image: the file is"
    ):
        ImageFolder(tmp_path, READING)
    save(tmp_path / "a.png")
    (tmp_path / "c.gif").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    folder = ImageFolder(tmp_path, READING)
    assert len(folder) == 1
    (warning,) = folder.list_warnings()
    assert "2 of 3 files are left out: b.png (not_an_image: the file is empty), c.gif (" in warning
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(EvaluationError, match=r"a\.png: changed while it was measured"):
        list(folder.iterate(4))


def test_any_format_is_read_by_content_and_over_the_background(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for name, kind in (("a.jpg", "GIF"), ("b", "TIFF"), ("c.png", "WEBP")):
        Image.fromarray(pixels).save(tmp_path / name, kind)
    clear = Image.new("RGBA", (8, 8), (1, 2, 3, 0))
    clear.save(tmp_path / "d.png")
    folder = ImageFolder(tmp_path, READING)
    assert len(folder) == 4
    assert next(folder.iterate(4))[3].min() == 255  # white: ingest.background
    assert any("1 alpha" in warning for warning in folder.list_warnings())
