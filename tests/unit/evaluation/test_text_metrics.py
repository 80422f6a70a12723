"""Text metrics and diversity of several images a text, on features right by construction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.evaluation.metrics.inputs import CaptionInputs, TextInputs
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.values import MetricValue
from tests.metric_values import SPACE, compute_values

PROMPTS = ["a", "b", "c", "d"]


def encode(texts: Sequence[str]) -> Tensor:
    """Each prompt is an axis."""
    return torch.eye(len(PROMPTS))[[PROMPTS.index(text) for text in texts]]


def measure(
    features: Tensor, suffix: str = "", prompts: Sequence[str] = PROMPTS
) -> dict[str, MetricValue]:
    own = torch.arange(len(prompts)).repeat_interleave(2)
    rows = [[row, *(n for n in range(len(prompts)) if n != row)] for row in own.tolist()]
    return compute_values(
        TextInputs(
            space=SPACE,
            grouping=Grouping(len(prompts), 2, 0),
            suffix=suffix,
            features=normalize(features, dim=1),
            texts=encode(prompts)[own],
            candidates=(encode(prompts), torch.tensor(rows)) if len(prompts) > 1 else None,
            samples_per_caption=2,
        )
    )


def measure_diversity(features: Tensor, samples: int = 2) -> dict[str, MetricValue]:
    return compute_values(
        CaptionInputs(
            space=SPACE,
            grouping=Grouping(len(features) // samples, 2, 0),
            features=features,
            samples_per_caption=samples,
        )
    )


def test_images_of_their_own_prompts() -> None:
    features = encode([prompt for prompt in PROMPTS for _ in range(2)])
    found = measure(3.0 * features, "_y")  # any length
    assert {name: value.value for name, value in found.items()} == {
        "clip_score_y": 1.0,
        "r_precision_y": 1.0,
    }
    assert len(found["r_precision_y"].leave_out) == 2, "groups of prompts"
    assert found["r_precision_y"].protocol.settings == {"candidates": 4, "samples_per_caption": 2}
    (diversity,) = measure_diversity(features).values()
    assert diversity.value == pytest.approx(0.0, abs=1e-6)


def test_one_image_for_all_prompts() -> None:
    found = measure(encode(["b"] * 8))
    assert found["clip_score"].value == found["r_precision"].value == 0.25


def test_two_images_a_prompt_at_a_right_angle() -> None:
    found = measure_diversity(encode(["a", "b"] * 4))
    assert found["caption_diversity_x"].value == pytest.approx(1.0)
    assert measure_diversity(torch.eye(4), samples=1) == {}


def test_one_prompt_has_no_other_to_be_mistaken_for() -> None:
    assert set(measure(encode(["a", "a"]), prompts=["a"])) == {"clip_score"}
