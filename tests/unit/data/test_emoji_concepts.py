"""No variant of a held-out concept is in training: proved over every emoji there is."""

from __future__ import annotations

import re

import pytest

from clipgan.data.sources.emoji.concepts import load_concepts, strip_caption
from clipgan.data.sources.emoji.names import load_captions
from clipgan.data.splits import compute_split
from clipgan.schemas import TRAIN, VALIDATION

# Written apart from the code under test: what a reader calls a variant.
VARIANT_WORDS = re.compile(
    r"\b(medium-light|medium-dark|light|medium|dark) skin tone\b|\bfacing right\b"
    r"|\b(red|curly|white|blond) hair\b|\bbald\b"
    r"|\b(man|woman|person|men|women|people)\b"
)


def remove_variants(caption: str) -> str:
    return " ".join(VARIANT_WORDS.sub(" ", caption.lower()).split())


def points(text: str) -> tuple[int, ...]:
    return tuple(ord(char) for char in text if char != "\ufe0f")


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_no_caption_of_one_split_is_a_variant_of_the_other(seed: int, fraction: float) -> None:
    stripped: dict[str, set[str]] = {TRAIN: set(), VALIDATION: set()}
    for key, captions in load_captions().items():
        split = compute_split(load_concepts()[key], validation_fraction=fraction, seed=seed)
        stripped[split] |= {remove_variants(caption) for caption in captions}
    assert len(stripped[VALIDATION]) > 50
    assert not stripped[TRAIN] & stripped[VALIDATION]


def test_skin_tones_never_leave_their_concept() -> None:
    concepts = load_concepts()
    tones = [key for key in concepts if len(key) > 1 and any(0x1F3FB <= p <= 0x1F3FF for p in key)]
    assert len(tones) > 1500
    for key in tones:
        plain = tuple(p for p in key if not 0x1F3FB <= p <= 0x1F3FF)
        if plain in concepts:
            assert concepts[key] == concepts[plain]


@pytest.mark.parametrize(
    "variants",
    [
        ["👨", "👩", "🧑", "👱", "👨‍🦰", "👩🏿‍🦲"],
        ["🏃", "🏃‍♀️", "🏃🏽‍♂️", "🏃‍➡️", "🏃🏿‍♀️‍➡️"],
        ["🤴", "👸", "🫅🏾"],
        ["🎅", "🤶", "🧑‍🎄"],
        ["👭", "👫🏽", "🧑‍🤝‍🧑", "👩🏿‍🤝‍👨🏻"],
        ["💏", "👩‍❤️‍💋‍👨", "👨🏽‍❤️‍💋‍👨🏿"],
        ["👪", "👨‍👩‍👧", "👩‍👦‍👦", "🧑‍🧑‍🧒"],
        ["🤝", "🫱🏻‍🫲🏿"],
        ["🤼", "🤼‍♀️"],
        ["🇪🇸", "🇪🇦"],
    ],
)
def test_variants_are_one_concept(variants: list[str]) -> None:
    concepts = load_concepts()
    assert len({concepts[points(text)] for text in variants}) == 1


@pytest.mark.parametrize("pair", ["🍎🍏", "🐶🐱", "😀😎", "❤💙", "🧑👶", "➡⬅"])
def test_different_things_stay_apart(pair: str) -> None:
    concepts = load_concepts()
    assert concepts[(ord(pair[0]),)] != concepts[(ord(pair[1]),)]


def test_most_concepts_are_small() -> None:
    # A rule that merges too much would show as a concept that swallows the data set.
    names = list(load_concepts().values())
    assert len(set(names)) > 1600
    assert max(names.count(name) for name in ("person", "kiss mark", "holding hands")) < 150


def test_caption_stripping() -> None:
    assert strip_caption("woman in motorized wheelchair dark skin tone") == "motorized wheelchair"
    assert strip_caption("man: medium-light skin tone, red hair") == "person"
    assert strip_caption("flag for Isle of Man") == "flag for isle of man"
    assert strip_caption("red apple") == "red apple"
