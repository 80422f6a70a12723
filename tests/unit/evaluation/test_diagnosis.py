"""Each fault is found in a history that shows it, alone, and none in a sound or a short one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clipgan.evaluation.report.diagnosis import (
    LEAST_ROWS,
    LOOKS,
    SIGNS,
    Announcer,
    diagnose,
    is_too_early,
    list_tries,
)
from clipgan.families.registry import FAMILIES

ROOT = Path(__file__).parents[3]
Row = dict[str, float]

SOUND: Row = {
    "generator_adversarial": 0.9,
    "discriminator_adversarial": 1.2,
    "training_logits_sign": 0.4,
    "held_out_logits_sign": 0.2,
    "sample_diversity": 20.0,
    "prompt_difference": 40.0,
    "sample_retrieval": 0.7,
}


def build_history(count: int = 16, **last: float | None) -> list[Row]:
    """A sound history whose rows of the second half take other values; None: without that."""
    rows = []
    for number in range(1, count + 1):
        row: dict[str, Any] = {"images_seen": 256 * number, **SOUND}
        if number > count // 2:
            row |= last
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def raise_generator_loss(rows: list[Row]) -> list[Row]:
    for number, row in enumerate(rows):
        row["generator_adversarial"] = 1.0 + 0.2 * number
    return rows


FAULTS: dict[str, list[tuple[list[Row], str]]] = {
    "divergence": [
        (
            build_history(generator_adversarial=60.0)[4:],
            "the loss generator_adversarial has grown to 60, from 0.9",
        ),
        (
            raise_generator_loss(build_history(discriminator_adversarial=0.05)),
            "near 0 (0.05 at most) while the generator's grows (2.9 to 3.7)",
        ),
    ],
    "overfitting": [
        (
            build_history(training_logits_sign=0.9, held_out_logits_sign=-0.2),
            "(sign 0.90), and held-out ones much less (sign -0.20)",
        ),
        (
            [
                {name: value for name, value in row.items() if name != "held_out_logits_sign"}
                for row in build_history(training_logits_sign=0.95)
            ],
            "nearly all training images for real (sign 0.95)",
        ),
    ],
    "lost variety": [
        (build_history(sample_diversity=0.3), "one picture whatever the seed (difference 0.3"),
        (build_history(sample_diversity=4.0), "differ by 4 of 255, and differed by 20"),
    ],
    "unheard words": [
        (build_history(sample_retrieval=0.05), "hardly more often than by chance (0.05;"),
        (build_history(prompt_difference=0.2), "all prompts give the same picture"),
    ],
}


def test_every_sign_has_a_history_that_shows_it() -> None:
    assert list(FAULTS) == [sign.name for sign in SIGNS]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [(name, rows, words) for name, cases in FAULTS.items() for rows, words in cases],
)
def test_a_fault_is_found_alone_with_its_number_and_keys(
    family: str, name: str, rows: list[Row], words: str
) -> None:
    (finding,) = diagnose(rows, family)
    sign = next(sign for sign in SIGNS if sign.name == name)
    assert finding.name == name
    assert words in finding.words
    assert finding.words.endswith(f": {sign.means}. Try {list_tries(sign, family)}")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_history_shows_nothing(family: str) -> None:
    rows = build_history()
    assert diagnose(rows, family) == []
    assert not is_too_early(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"discriminator_adversarial": 0.05},  # wins, and the generator holds its own
        {"generator_adversarial": 19.0},
        {"training_logits_sign": 0.95, "held_out_logits_sign": 0.6},  # knows others too
        {"sample_diversity": 6.0},
        {"sample_retrieval": 0.2},
    ],
)
def test_what_is_within_the_limits_is_no_fault(changes: Row) -> None:
    assert diagnose(build_history(**changes), "lafite") == []


def test_losses_that_are_large_from_the_start_are_no_divergence() -> None:
    rows = [row | {"generator_adversarial": 30.0} for row in build_history()]
    assert diagnose(rows, "lafite") == []


def test_one_look_is_not_believed_where_chance_could_make_it() -> None:
    for changes in (
        {"training_logits_sign": 0.9, "held_out_logits_sign": -0.2},
        {"sample_diversity": 4.0},
        {"sample_retrieval": 0.0},
    ):
        rows = build_history()
        rows[-1] |= changes
        assert diagnose(rows, "lafite") == [], changes


def test_a_start_and_a_warm_up_are_not_judged() -> None:
    warm_up = [
        {"images_seen": 0, "sample_diversity": 200.0, "prompt_difference": 0.0},
        {"images_seen": 128, "reconstruction": 0.2, "sample_diversity": 0.1},
    ]
    assert diagnose(warm_up, "lafite") == []
    assert is_too_early(warm_up)
    assert diagnose([*warm_up, *build_history()], "lafite") == []


@pytest.mark.parametrize("count", [0, 1, LEAST_ROWS - 1])
def test_a_short_history_is_too_early(count: int) -> None:
    assert is_too_early(build_history(count))


def test_a_history_with_few_looks_is_too_early() -> None:
    rows = build_history()
    for row in rows[LOOKS - 1 :]:
        del row["training_logits_sign"]
    assert is_too_early(rows)


def test_a_running_training_hears_of_a_fault_once(caplog: pytest.LogCaptureFixture) -> None:
    announce = Announcer("lafite")
    rows = build_history(sample_diversity=0.3)
    with caplog.at_level(logging.WARNING):
        for end in range(1, len(rows) + 1):
            announce(rows[:end])
    (line,) = caplog.messages
    assert line.startswith("after 2,304 images: each prompt gives one picture whatever the seed")
    assert "train.lafite.losses.reconstruction_weight down" in line


@pytest.mark.parametrize("family", FAMILIES)
def test_the_keys_to_change_are_in_params_yaml(family: str) -> None:
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for sign in SIGNS:
        keys = [key for each in sign.tries if (key := each.resolve(family)) is not None]
        assert keys
        for key in keys:
            place = params
            for part in key.split("."):
                assert part in place, key
                place = place[part]


def test_a_key_that_no_family_has_is_a_mistake() -> None:
    for sign in SIGNS:
        for each in sign.tries:
            assert any(each.resolve(family) for family in FAMILIES), each.key


def test_the_tuning_guide_has_the_same_table() -> None:
    lines = []
    for sign in SIGNS:
        tries = []
        for each in sign.tries:
            keys = [key for name in FAMILIES if (key := each.resolve(name)) is not None]
            tries.append(f"{', '.join(f'`{key}`' for key in dict.fromkeys(keys))} {each.change}")
        lines.append(f"| {sign.name}: {sign.shown} | {sign.means} | {'; '.join(tries)} |\n")
    table = "| the training says | it means | try |\n|---|---|---|\n" + "".join(lines)
    text = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    assert table in text, f"docs/tuning.md needs this table:\n{table}"
