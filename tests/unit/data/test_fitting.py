from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipgan.config import Fit
from clipgan.data.fitting import fit_to_square, summarise_shapes
from tests.params import params_with
from tests.unit.data.pictures import picture

LANCZOS = Image.Resampling.LANCZOS


def fit(image: Image.Image, how: Fit, **changes: Any) -> tuple[np.ndarray, dict[str, str]]:
    settings = {"resolution_px": 32, "fit": how, **changes}
    config = params_with({f"ingest.{key}": value for key, value in settings.items()}).ingest
    alterations: dict[str, str] = {}
    return np.asarray(fit_to_square(image, config, alterations)), alterations


def test_pad_keeps_the_whole_picture_between_bars() -> None:
    image = picture(120, 60)
    square, alterations = fit(image, "pad", background="#0a141e")
    assert alterations == {"padded": ""}
    assert np.array_equal(square[8:24], np.asarray(image.resize((32, 16), LANCZOS)))
    assert (square[:8] == (10, 20, 30)).all()
    assert (square[24:] == (10, 20, 30)).all()


def test_squash_keeps_every_part_in_other_proportions() -> None:
    image = picture(60, 120)
    square, alterations = fit(image, "squash")
    assert alterations == {"squashed": ""}
    assert np.array_equal(square, np.asarray(image.resize((32, 32), LANCZOS)))


@pytest.mark.parametrize("how", ["crop", "pad", "squash"])
def test_a_square_is_no_case_for_any_of_them(how: Fit) -> None:
    image = picture(64, 64)
    square, alterations = fit(image, how)
    assert alterations == {}
    assert np.array_equal(square, np.asarray(image.resize((32, 32), LANCZOS)))


@pytest.mark.parametrize(
    ("how", "size", "upscaled"),
    [
        ("crop", (40, 30), True),
        ("pad", (40, 30), False),
        ("squash", (40, 30), True),
        ("pad", (30, 20), True),
        ("crop", (40, 32), False),
    ],
)
def test_enlarging_is_listed(how: Fit, size: tuple[int, int], upscaled: bool) -> None:
    _, alterations = fit(picture(*size), how)
    assert ("upscaled" in alterations) == upscaled


def test_a_line_keeps_one_pixel_when_padded() -> None:
    square, _ = fit(picture(400, 3), "pad")
    assert square.shape == (32, 32, 3)


def test_the_sentence_counts_who_lost_how_much() -> None:
    sizes = [(100, 100)] * 100 + [(100, 95)] * 29 + [(150, 100)] * 600 + [(60, 100)] * 40
    assert summarise_shapes("crop", sizes).describe() == (
        "640 of 769 images lost more than 10 % of their longer side to the crop, 40 of them more "
        "than a third; ingest.fit: pad keeps all of them"
    )
    assert summarise_shapes("pad", sizes).describe() == (
        "640 of 769 images have bars over more than 10 % of the square, 40 of them more than a "
        "third; nothing was cut"
    )
    assert summarise_shapes("squash", [(2, 1)]).describe() == (
        "1 of 1 images were squashed by more than 10 % of their longer side, 1 of them more than "
        "a third"
    )
    assert summarise_shapes("crop", [(5, 5)]).describe() == (
        "every image is square: none was changed in shape"
    )
