"""Text metrics by prompts, on features that are right by construction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from clipgan.evaluation.clip_metrics import TextImageModel
from clipgan.evaluation.feature_spaces import TrainingClip, build_training_clip
from clipgan.evaluation.prompt_judge import PromptJudge

PROMPTS = ["a", "b", "c", "d"]
SPACE = build_training_clip(TrainingClip(lambda images: images, {}))


def encode_texts(texts: Sequence[str]) -> Tensor:
    """Each prompt is an axis."""
    return torch.eye(len(PROMPTS))[[PROMPTS.index(text) for text in texts]]


@pytest.fixture
def judge() -> PromptJudge:
    return PromptJudge(PROMPTS, samples_per_prompt=2, num_groups=2, seed=0)


def test_images_of_their_own_prompts(judge: PromptJudge) -> None:
    assert judge.prompts == ["a", "a", "b", "b", "c", "c", "d", "d"]
    features = 3.0 * encode_texts(judge.prompts)  # any length
    found = judge.measure_text(TextImageModel(SPACE, encode_texts, "_x"), features)
    assert {name: value.estimate.value for name, value in found.items()} == {
        "clip_score_x": 1.0,
        "r_precision_x": 1.0,
    }
    assert len(found["r_precision_x"].estimate.leave_out) == 2
    (diversity,) = judge.measure_diversity(SPACE, features).values()
    assert diversity.estimate.value == pytest.approx(0.0, abs=1e-6)


def test_one_image_for_all_prompts(judge: PromptJudge) -> None:
    features = encode_texts(["b"] * 8)
    found = judge.measure_text(TextImageModel(SPACE, encode_texts, ""), features)
    assert found["clip_score"].estimate.value == found["r_precision"].estimate.value == 0.25


def test_two_images_a_prompt_at_a_right_angle(judge: PromptJudge) -> None:
    features = encode_texts(["a", "b"] * 4)
    (diversity,) = judge.measure_diversity(SPACE, features).values()
    assert diversity.estimate.value == pytest.approx(1.0)


def test_the_words_decide_the_protocol() -> None:
    one, other = (
        PromptJudge(prompts, samples_per_prompt=1, num_groups=2, seed=0)
        for prompts in (["a", "b"], ["a", "c"])
    )
    assert one.captions != other.captions
    assert one.measure_diversity(SPACE, torch.eye(2)) == {}
    alone = PromptJudge(["a"], samples_per_prompt=2, num_groups=2, seed=0)
    model = TextImageModel(SPACE, encode_texts, "")
    assert set(alone.measure_text(model, encode_texts(["a", "a"]))) == {"clip_score"}
