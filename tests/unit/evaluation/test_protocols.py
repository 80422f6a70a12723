from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.study.benchmark import build_benchmark
from clipgan.evaluation.study.protocols import (
    FIXED,
    find_protocol,
    format_protocols,
    list_protocols,
)
from tests.params import params_with
from tests.unit.evaluation.tiny_images import Drawing, build_images

NAMES = [
    "fd-offline",
    "fid30k-val",
    "fid30k-train-lafite",
    "galip-legacy",
    "clean-fid",
    "zero-shot-coco",
    "cub",
]
MINE = {"name": "mine", "based_on": "fid30k-val", "num_generated": 12, "seed": 5}


def config_with(**changes: Any) -> EvaluateConfig:
    return params_with({f"evaluate.{key}": value for key, value in changes.items()}).evaluate


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six training images, four of validation, three of them with captions."""
    drawings = [Drawing(f"t{n}", [f"train {n}"]) for n in range(6)]
    drawings += [Drawing(f"v{n}", [f"kept {n}"], split="validation") for n in range(3)]
    drawings += [Drawing("bare", [], split="validation")]
    return build_images(tmp_path / "images", drawings)


def test_every_protocol_of_the_issue_is_there_and_frozen() -> None:
    known = list_protocols(config_with())
    assert list(known) == NAMES
    for protocol in known.values():
        with pytest.raises(FrozenInstanceError):
            protocol.seed = 1  # type: ignore[misc]


def test_no_two_protocols_are_the_same() -> None:
    contents = []
    for protocol in FIXED.values():
        fields = asdict(protocol)
        del fields["name"], fields["summary"]
        contents.append(fields)
    assert all(a != b for n, a in enumerate(contents) for b in contents[n + 1 :])


def test_those_of_the_literature_do_not_listen_to_params() -> None:
    changed = config_with(seed=7, num_generated=10, truncation=0.5, reference_split="all")
    assert find_protocol("fid30k-val", changed).seed == 0
    assert find_protocol("fid30k-val", changed).num_generated == 30_000
    offline = find_protocol("fd-offline", changed)
    assert (offline.seed, offline.num_generated, offline.truncation) == (7, 10, 0.5)
    assert offline.reference_split == offline.captions_split == "all"


def test_further_spaces_come_after_the_protocols_own() -> None:
    config = config_with(feature_spaces=["inception-tf", "training-clip"])
    assert find_protocol("fd-offline", config).spaces == (
        "efficientnet-lite0",
        "inception-tf",
        "training-clip",
    )
    assert find_protocol("fid30k-val", config).spaces == ("inception-tf", "training-clip")


def test_a_custom_protocol_changes_what_it_says_and_nothing_else() -> None:
    config = config_with(custom_protocols=[MINE, {"name": "twin", "based_on": "mine"}])
    mine, base = find_protocol("mine", config), find_protocol("fid30k-val", config)
    changed = {key for key, value in asdict(mine).items() if value != getattr(base, key)}
    assert changed == {"name", "summary", "num_generated", "seed"}
    assert find_protocol("twin", config).seed == 5


@pytest.mark.parametrize(
    ("custom", "reason"),
    [
        ([{"name": "cub", "based_on": "fid30k-val"}], "'cub' is the name of another protocol"),
        ([{"name": "mine", "based_on": "fid"}], "mine is based on 'fid', which is none of fd-off"),
    ],
)
def test_bad_custom_protocols_are_refused(custom: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason):
        list_protocols(config_with(custom_protocols=custom))


def test_params_are_checked_before_anything_runs() -> None:
    for custom in (
        [{"name": "A b", "based_on": "cub"}],
        [{**MINE, "num_generated": 1}],
        [{**MINE, "nummer": 3}],
        [MINE, MINE],
    ):
        with pytest.raises(ValidationError):
            config_with(custom_protocols=custom)
    with pytest.raises(ValidationError, match="names one twice"):
        config_with(protocols=["cub", "cub"])


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(EvaluationError, match="'fid' is unknown: choose one of fd-offline, fid30k"):
        find_protocol("fid", config_with())


def test_the_list_tells_all_that_each_fixes() -> None:
    text = format_protocols(config_with(custom_protocols=[MINE]))
    for name in (*NAMES, "mine"):
        assert f"\n{name}\n" in f"\n{text}\n"
    assert "num_generated: 30,000" in text
    assert "num_generated: one for each captioned image" in text
    assert "blur_radii_px: 1, 2, 4, 8" in text
    assert "fid30k-val with other num_generated, seed" in text


def test_fewer_images_than_a_strict_protocol_asks_for_are_refused(images: Path) -> None:
    config = config_with()
    with pytest.raises(
        EvaluationError, match=r"fid30k-val asks for 30,000 captioned images .*there are 3: use"
    ):
        build_benchmark(config, find_protocol("fid30k-val", config), images, 16)


def test_captions_of_a_small_split_come_in_turn_against_all_its_images(images: Path) -> None:
    config = config_with()
    choice = build_benchmark(config, find_protocol("cub", config), images, 16).choice
    assert len(choice.conditions) == 30_000
    assert set(choice.conditions) == {"kept 0", "kept 1", "kept 2"}
    assert sorted(choice.image_rows) == [0, 1, 2, 3]


def test_lafites_reals_are_the_training_split_and_its_captions_are_not(images: Path) -> None:
    config = config_with()
    found = build_benchmark(config, find_protocol("fid30k-train-lafite", config), images, 16)
    assert (found.reference.split, found.captions.split) == ("train", "validation")
    assert len(found.choice.image_rows) == 6
    assert all(caption.startswith("kept") for caption in found.choice.conditions)


def test_galips_count_is_one_for_each_captioned_image(images: Path) -> None:
    config = config_with()
    found = build_benchmark(config, find_protocol("galip-legacy", config), images, 16)
    assert sorted(found.choice.conditions) == ["kept 0", "kept 1", "kept 2"]


def test_captions_of_another_split_are_refused(images: Path) -> None:
    custom = {**MINE, "num_generated": 3, "reference_split": "train"}
    config = config_with(custom_protocols=[custom])
    with pytest.raises(
        EvaluationError, match=r"mine: captions of split 'validation' do not belong to .* 'train'"
    ):
        build_benchmark(config, find_protocol("mine", config), images, 16)


def test_galips_reals_keep_their_size_beside_smaller_images(images: Path) -> None:
    config = config_with()
    found = build_benchmark(config, find_protocol("galip-legacy", config), images, 224)
    assert (found.reference_px, found.resolution_px) == (256, 224)
    assert found.resize == "reference Lanczos to 256 px where stored larger"
    plain = build_benchmark(config, find_protocol("cub", config), images, 16)
    assert plain.reference_px == 16
