from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipgan.errors import DataError, EvaluationError
from clipgan.evaluation.study.reference import (
    choose_gallery,
    choose_reference,
    load_reference_images,
    load_reference_index,
)
from tests.unit.evaluation.tiny_images import Drawing, build_images, draw

NUM = 12


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """12 concepts in style plain (each with a longer-named variant before it), 6 in style bold,
    2 of validation."""
    drawings = []
    for number in range(NUM):
        name = f"thing {number}"
        drawings.append(Drawing(name, [f"{name} with a hat"]))
        drawings.append(Drawing(name, [name, f"the {name}"]))
    drawings += [Drawing(f"thing {n}", [f"bold thing {n}"], style="bold") for n in range(6)]
    drawings += [Drawing(f"kept {n}", [f"kept {n}"], split="validation") for n in range(2)]
    return build_images(tmp_path / "images", drawings)


@pytest.mark.parametrize(("split", "count"), [("train", 30), ("validation", 2), ("all", 32)])
def test_index_holds_the_split(images: Path, split: str, count: int) -> None:
    assert len(load_reference_index(images, split).sample_ids) == count


def test_empty_split_is_refused_with_the_fix(tmp_path: Path) -> None:
    images = build_images(tmp_path / "images", [Drawing("a", ["a"]), Drawing("b", ["b"])])
    with pytest.raises(EvaluationError, match=r"'validation' has no image.*use train"):
        load_reference_index(images, "validation")


def test_deleted_shard_is_named(images: Path) -> None:
    (images / "images-00001.parquet").unlink()
    with pytest.raises(DataError, match="images-00001"):
        load_reference_index(images, "train")


def test_images_come_in_the_order_asked_for_unchanged(images: Path) -> None:
    index = load_reference_index(images, "validation")
    found = load_reference_images(index, [1, 0], 16)
    expected = [draw("kept 1", 16), draw("kept 0", 16)]
    for image, pixels in zip(found, expected, strict=True):
        assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))
    assert load_reference_images(index, [0], 8).shape == (1, 3, 8, 8)


def test_choice_depends_on_the_seed_alone(images: Path) -> None:
    index = load_reference_index(images, "train")
    assert choose_reference(index, 10, 1) == choose_reference(index, 10, 1)
    assert choose_reference(index, 10, 1) != choose_reference(index, 10, 2)


def test_captions_are_those_of_the_reference_images(images: Path) -> None:
    index = load_reference_index(images, "train")
    choice = choose_reference(index, 10, 0)
    assert len(set(choice.image_rows)) == 10
    assert choice.condition_rows == choice.image_rows
    for caption, row in zip(choice.conditions, choice.condition_rows, strict=True):
        assert caption in index.captions[row]


def test_small_split_gives_each_image_in_turn(images: Path) -> None:
    choice = choose_reference(load_reference_index(images, "validation"), 5, 0)
    assert sorted(choice.image_rows) == [0, 1]
    assert choice.condition_rows == (choice.image_rows * 3)[:5]


def test_images_without_captions_are_references_but_no_prompts(tmp_path: Path) -> None:
    drawings = [Drawing(str(n), [f"caption {n}"] if n % 2 else []) for n in range(10)]
    index = load_reference_index(build_images(tmp_path / "images", drawings), "train")
    choice = choose_reference(index, 10, 0)
    assert sorted(choice.image_rows) == list(range(10))
    assert sorted(set(choice.condition_rows)) == [1, 3, 5, 7, 9]


def test_without_any_caption_the_images_themselves_are_the_conditions(tmp_path: Path) -> None:
    images = build_images(tmp_path / "images", [Drawing("a", []), Drawing("b", [])])
    choice = choose_reference(load_reference_index(images, "train"), 4, 0)
    assert not choice.has_captions
    assert sorted(choice.conditions) == ["0000", "0000", "0001", "0001"]


def test_gallery_has_the_plainest_image_of_each_concept(images: Path) -> None:
    index = load_reference_index(images, "train")
    gallery = choose_gallery(index, NUM, 0)
    assert gallery.style == "plain"
    assert sorted(gallery.prompts) == sorted(f"thing {n}" for n in range(NUM))
    assert [index.captions[row][0] for row in gallery.rows] == gallery.prompts
    assert list(gallery.others) == ["plain", "bold"]
    assert len(gallery.others["bold"]) == 6
    for place, row in gallery.others["bold"]:
        assert index.captions[row] == [f"bold {gallery.prompts[place]}"]
    assert len(gallery.others["plain"]) == NUM
    for place, row in gallery.others["plain"]:
        assert index.captions[row] == [f"{gallery.prompts[place]} with a hat"]
    assert sorted([index.captions[row][0] for row in rows] for rows in gallery.looks) == [
        [f"thing {n}", f"bold thing {n}"] for n in range(6)
    ]


def test_prompts_leave_the_look_open_where_a_caption_does(tmp_path: Path) -> None:
    named = ["one, drawn plainly", "one", "two, drawn plainly", "two, drawn boldly", "2", "3, 4"]
    concepts = ["one", "one", "two", "two", "two", "three"]
    styles = ["plain", "bold", "plain", "bold", "bold", "plain"]
    drawings = [
        Drawing(concept, [name], style=style)
        for concept, name, style in zip(concepts, named, styles, strict=True)
    ]
    index = load_reference_index(build_images(tmp_path / "images", drawings), "train")
    prompts = choose_gallery(index, 3, 0).prompts
    assert sorted(prompts) == ["3, 4", "one", "two, drawn plainly"]


def test_gallery_larger_than_the_data_is_refused_with_the_limit(images: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"num_concepts = 13 is above the 12 .* to 12 or less"
    ):
        choose_gallery(load_reference_index(images, "train"), 13, 0)


def test_captions_of_concepts_are_gathered_once(images: Path) -> None:
    captions = load_reference_index(images, "train").captions_of_concepts()
    assert captions["thing 0"] == ["thing 0 with a hat", "thing 0", "the thing 0", "bold thing 0"]
