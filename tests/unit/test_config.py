"""params.yaml: typed, frozen, without defaults; every mistake one line with key, value and fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from clipgan.config import Params, load_params
from clipgan.errors import ConfigError
from clipgan.families.registry import FAMILIES
from tests.params import PARAMS_YAML, params_with, tree_with

PROJECTED: dict[str, Any] = {
    "train.lafite.discriminator.kind": "projected",
    "train.lafite.losses.r1_gamma": 0.0,
    "train.lafite.losses.discriminator_contrastive_weight": 0.0,
}


def save(path: Path, tree: Any) -> Path:
    with path.open("w", encoding="utf-8") as handle:
        YAML().dump(tree, handle)
    return path


def explain(tmp_path: Path, changes: dict[str, Any]) -> str:
    """The error message of params.yaml with single values changed, without the file's name."""
    path = save(tmp_path / "params.yaml", tree_with(changes))
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_there_are_no_defaults() -> None:
    def check(model: Any) -> None:
        for name, field in model.model_fields.items():
            assert field.is_required(), f"{model.__name__}.{name}"
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation)

    check(Params)


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        params_with().train.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train.batch_size": 0},
            "train.batch_size = 0: input should be greater than or equal to 2",
        ),
        ({"train.batch_size": "16"}, "train.batch_size = '16': input should be a valid integer"),
        ({"train.seed": -1}, "train.seed = -1: input should be greater than or equal to 0"),
        (
            {"register.gate_metric": "fid30k-val/recall"},
            "register: gate_metric = 'fid30k-val/recall' has no interval to decide by",
        ),
        ({"train.mirror": "yes"}, "train.mirror = 'yes': input should be a valid boolean"),
        ({"train.device": "gpu"}, "train.device = 'gpu': string should match pattern"),
        (
            {"train.resolution_px": 96},
            "train: resolution_px = 96 is no power of two: use 64 or 128",
        ),
        (
            {"train.batch_size": 6},
            "train: batch_size = 6 is not divisible by "
            "lafite.discriminator.minibatch_std_group = 4: change one of them",
        ),
        (
            {"train.augmentation.policies": []},
            "train.augmentation: augmentation.kind = diffaugment, but augmentation.policies is "
            "empty: name policies, or set the kind to none",
        ),
        (
            {"train.lafite.freeze_discriminator_blocks": 5},
            "train: lafite.freeze_discriminator_blocks = 5, but the discriminator of 64 px has "
            "4 blocks: use at most 4",
        ),
        (
            {"train.lafite.freeze_discriminator_blocks": 1, "train.initial_weights": "none"},
            "train: lafite.freeze_discriminator_blocks = 1 would freeze random weights, because "
            "initial_weights = none: set it to 0, or start from trained weights",
        ),
        (
            {"train.lafite.discriminator.kind": "projected"},
            "train: lafite.losses.r1_gamma = 2.0 is of StyleGAN2's discriminator, and "
            "lafite.discriminator.kind = projected has no use for it: set it to 0",
        ),
        (
            PROJECTED | {"train.lafite.losses.discriminator_contrastive_weight": 2.0},
            "train: lafite.losses.discriminator_contrastive_weight = 2.0 is of StyleGAN2's",
        ),
        (
            PROJECTED | {"train.lafite.freeze_discriminator_blocks": 1},
            "train: lafite.freeze_discriminator_blocks = 1 is of StyleGAN2's discriminator",
        ),
        (
            PROJECTED | {"train.augmentation.kind": "ada"},
            "train: augmentation.kind = ada steers by the logits of StyleGAN2's discriminator",
        ),
        (
            {"train.lafite.losses.adversarial": "relativistic"},
            "train: lafite.losses.adversarial = relativistic compares single images, and "
            "lafite.discriminator.minibatch_std_group = 4 mixes them: set it to 1",
        ),
        (
            {
                "train.lafite.losses.adversarial": "relativistic",
                "train.lafite.discriminator.minibatch_std_group": 1,
                "train.lafite.discriminator.semantic_logit": "batch_sum",
            },
            "train: lafite.losses.adversarial = relativistic compares single images, and "
            "lafite.discriminator.semantic_logit = batch_sum mixes them: set it to per_sample",
        ),
        ({"train.precision": "fp8"}, "train.precision = 'fp8': input should be 'fp32', 'bf16' or"),
        (
            {"ingest.background": "paper"},
            "ingest.background: 'paper' is no colour: use a name such as white, or",
        ),
        ({"ingest.background": "#ffffff80"}, "ingest.background: '#ffffff80' is no colour"),
        ({"ingest.fit": "cut"}, "ingest.fit = 'cut': input should be 'crop', 'pad' or 'squash'"),
        ({"ingest.source": "folders"}, "ingest: source = 'folders': choose one of emoji, folder"),
        (
            {"ingest.source": "folder", "ingest.folder": ""},
            "ingest: source is folder: set ingest.folder to the folder of your images",
        ),
        ({"ingest.emoji_styles": []}, "ingest.emoji_styles = []: "),
        ({"ingest.emoji_styles": ["apple"]}, "ingest.emoji_styles.0 = 'apple': "),
        (
            {"train.lafite.optimizer.beta2": 1.0},
            "train.lafite.optimizer.beta2 = 1.0: input should be less than 1",
        ),
        ({"train.lafite.losses.r1_gamma": float("nan")}, "train.lafite.losses.r1_gamma = nan: "),
        (
            {"register.model_name": "a b"},
            "register.model_name = 'a b': string should match pattern",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert explain(tmp_path, changes).startswith(message)


def test_a_typo_is_named_and_mended(tmp_path: Path) -> None:
    tree = tree_with()
    del tree["train"]["lafite"]["losses"]["r1_gamma"]
    tree["train"]["lafite"]["losses"]["r1_gama"] = 1.0
    with pytest.raises(ConfigError) as caught:
        load_params(save(tmp_path / "params.yaml", tree))
    assert "train.lafite.losses.r1_gama = 1.0 is an unknown key: did you mean r1_gamma?" in str(
        caught.value
    )


def test_an_unknown_key_without_a_likeness_shows_the_known_ones(tmp_path: Path) -> None:
    tree = tree_with()
    tree["ema"] = {}
    with pytest.raises(
        ConfigError, match=r"ema = \{\} is an unknown key: known keys: threads, ingest, "
    ):
        load_params(save(tmp_path / "params.yaml", tree))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    tree = tree_with()
    del tree["register"]["gate_metric"]
    with pytest.raises(ConfigError, match=r"register\.gate_metric is missing: add it"):
        load_params(save(tmp_path / "params.yaml", tree))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: [1", "not readable as YAML"),
        (b"\xff\xfe", "not readable as YAML"),
        (b"", "expected sections such as `train:`, found NoneType"),
        (b"- 1", "expected sections such as `train:`, found list"),
        (b"train: 1\ntrain: 2", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_params_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`clipgan init emoji` writes one"):
        load_params(tmp_path / "params.yaml")


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    # PyYAML reads 1e-4 as text; DVC and we read a number.
    written = PARAMS_YAML.read_text("utf-8")
    text = re.sub(r"clip_contrastive_weight: \S+", "clip_contrastive_weight: 1e-4", written)
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_params(path).train.lafite.losses.clip_contrastive_weight == 1e-4


def test_a_key_of_an_earlier_version_says_what_to_do_with_it(tmp_path: Path) -> None:
    tree = tree_with()
    tree["register"]["gate_direction"] = "lower"
    with pytest.raises(ConfigError) as caught:
        load_params(save(tmp_path / "params.yaml", tree))
    assert str(caught.value).endswith(
        "register.gate_direction is no key any more: the metric itself knows which values are "
        "better: remove the line"
    )


def test_a_dump_holds_every_familys_section() -> None:
    tree = params_with().model_dump(mode="json", by_alias=True)
    assert tree["train"].keys() > FAMILIES.keys()
    assert Params.model_validate(tree) == params_with()
