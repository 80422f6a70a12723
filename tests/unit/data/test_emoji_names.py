from __future__ import annotations

import re

import pytest

from clipgan.data.sources.emoji.names import (
    clean_name,
    format_code_points,
    load_captions,
    parse_file_stem,
)


@pytest.mark.parametrize(
    "stem",
    ["0023-FE0F-20E3", "23-20e3", "0023_fe0f_20e3"],
)
def test_file_names_of_all_packages_give_the_same_code_points(stem: str) -> None:
    assert parse_file_stem(stem) == (0x23, 0x20E3)


def test_code_points_are_written_without_variation_selector() -> None:
    assert format_code_points(parse_file_stem("1F3F3-FE0F-200D-1F308")) == "1f3f3-200d-1f308"


def test_names_and_aliases_become_captions_once() -> None:
    captions = load_captions()
    assert captions[(0x1F34E,)] == ("red apple", "apple")
    assert captions[(0x1F18E,)] == ("AB button (blood type)", "ab")
    assert captions[(0x1F3C3,)] == ("person running", "runner", "running")
    assert clean_name(":woman\N{RIGHT SINGLE QUOTATION MARK}s_hat:") == "woman's hat"


def test_flags_say_that_they_are_flags() -> None:
    argentina = load_captions()[(0x1F1E6, 0x1F1F7)]
    assert argentina == ("flag for Argentina",)


def test_captions_have_no_markup_left_and_are_never_empty() -> None:
    for captions in load_captions().values():
        assert captions
        for caption in captions:
            assert caption == caption.strip() != ""
            assert not re.search(r"[:_]|\s\s", caption)
