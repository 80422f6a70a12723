from __future__ import annotations

import pytest
import torch

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.concept_accuracy import compute_hits
from clipgan.evaluation.metrics.inputs import CaptionInputs
from clipgan.metrics.grouping import Grouping
from tests.metric_values import SPACE, compute_values


def test_the_gallery_against_itself_is_always_right() -> None:
    gallery = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    assert compute_hits(gallery, torch.arange(20), gallery).tolist() == [1.0] * 20


def test_length_of_a_feature_does_not_count() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 100.0]])
    features = torch.tensor([[9.0, 1.0], [0.01, 0.02], [1.0, 0.9]])
    assert compute_hits(features, torch.tensor([0, 1, 1]), gallery).tolist() == [1.0, 1.0, 0.0]


def test_guessing_reaches_one_in_the_number_of_concepts() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 32, generator=generator)
    gallery = torch.randn(10, 32, generator=generator)
    inputs = CaptionInputs(
        space=SPACE,
        grouping=Grouping(10, 5, 0),
        features=features,
        samples_per_caption=400,
        gallery=gallery,
        concepts=torch.arange(10),
    )
    found = compute_values(inputs)["concept_accuracy"]
    assert found.value == pytest.approx(0.1, abs=0.019)
    assert (found.better, found.protocol.settings) == ("higher", {"concepts": 10})
    right = CaptionInputs(**{**vars(inputs), "features": gallery.repeat_interleave(400, dim=0)})
    assert compute_values(right)["concept_accuracy"].value == 1.0, "prompts follow the gallery"


def test_bad_input_is_refused() -> None:
    with pytest.raises(EvaluationError, match="at least 2 concepts, not 1"):
        compute_hits(torch.ones(1, 4), torch.tensor([0]), torch.ones(1, 4))
    with pytest.raises(EvaluationError, match="NaN"):
        compute_hits(torch.full((1, 4), float("nan")), torch.tensor([0]), torch.ones(2, 4))
