from __future__ import annotations

import pytest
import torch

from clipgan.errors import EvaluationError
from clipgan.evaluation.concept_accuracy import compute_concept_accuracy, repeat_concepts


def test_the_gallery_against_itself_is_always_right() -> None:
    gallery = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    assert compute_concept_accuracy(gallery, torch.arange(20), gallery) == 1.0


def test_length_of_a_feature_does_not_count() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 100.0]])
    features = torch.tensor([[9.0, 1.0], [0.01, 0.02], [1.0, 0.9]])
    assert compute_concept_accuracy(features, torch.tensor([0, 1, 1]), gallery) == pytest.approx(
        2 / 3
    )


def test_guessing_reaches_one_in_the_number_of_concepts() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 32, generator=generator)
    gallery = torch.randn(10, 32, generator=generator)
    found = compute_concept_accuracy(features, repeat_concepts(10, 400), gallery)
    assert found == pytest.approx(0.1, abs=0.019)


def test_repeated_concepts_follow_the_prompts() -> None:
    assert repeat_concepts(3, 2).tolist() == [0, 0, 1, 1, 2, 2]


def test_bad_input_is_refused() -> None:
    with pytest.raises(EvaluationError, match="at least 2 concepts, not 1"):
        compute_concept_accuracy(torch.ones(1, 4), torch.tensor([0]), torch.ones(1, 4))
    with pytest.raises(EvaluationError, match="NaN"):
        compute_concept_accuracy(
            torch.full((1, 4), float("nan")), torch.tensor([0]), torch.ones(2, 4)
        )
