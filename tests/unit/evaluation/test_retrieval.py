from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.clip_score import compute_clip_scores
from clipgan.evaluation.metrics.r_precision import choose_distractors, compute_wins, index_captions

CONCEPTS = [f"concept {i}" for i in range(30)]
CAPTIONS_OF = {concept: [f"{concept}, {n}" for n in range(3)] for concept in CONCEPTS}


def choose(num_candidates: int = 10, seed: int = 0) -> list[list[str]]:
    own = [CAPTIONS_OF[concept][1] for concept in CONCEPTS]
    return choose_distractors(own, CONCEPTS, CAPTIONS_OF, num_candidates=num_candidates, seed=seed)


def test_own_caption_is_first_and_the_rest_are_of_other_concepts_each_once() -> None:
    for concept, candidates in zip(CONCEPTS, choose(), strict=True):
        assert candidates[0] == f"{concept}, 1"
        concepts = [text.partition(",")[0] for text in candidates]
        assert len(set(concepts)) == 10
        assert concepts.count(concept) == 1


def test_choice_depends_on_the_seed_alone() -> None:
    assert choose(seed=3) == choose(seed=3) != choose(seed=4)


def test_all_other_concepts_may_be_needed() -> None:
    assert {len(candidates) for candidates in choose(num_candidates=30)} == {30}


def test_same_words_of_another_concept_are_no_distractor() -> None:
    captions_of = {"a": ["x"], "b": ["x"], "c": ["y"], "d": ["z"]}
    for seed in range(20):
        (candidates,) = choose_distractors(["x"], ["a"], captions_of, num_candidates=3, seed=seed)
        assert sorted(candidates[1:]) == ["y", "z"]


@pytest.mark.parametrize(
    ("captions_of", "limit"), [({"a": ["x"], "b": ["y"]}, 2), ({c: ["x"] for c in "abcd"}, 1)]
)
def test_too_few_captions_name_the_parameter_and_the_limit(
    captions_of: dict[str, list[str]], limit: int
) -> None:
    with pytest.raises(EvaluationError, match=f"retrieval_candidates = 3.*set it to {limit} or"):
        choose_distractors(["x"], ["a"], captions_of, num_candidates=3, seed=0)


def test_perfect_embeddings_reach_one() -> None:
    texts, rows = index_captions(choose())
    features = normalize(torch.randn(len(texts), 64), dim=1)
    assert compute_wins(features[rows[:, 0]], features, rows).mean() == 1.0


def test_random_embeddings_reach_one_in_the_number_of_candidates() -> None:
    generator = torch.Generator().manual_seed(0)
    num = 4000
    rows = torch.stack([torch.randperm(200, generator=generator)[:10] for _ in range(num)])
    images = normalize(torch.randn(num, 64, generator=generator), dim=1)
    texts = normalize(torch.randn(200, 64, generator=generator), dim=1)
    # 4 standard deviations of a share of 0.1 over 4,000 images
    assert float(compute_wins(images, texts, rows).mean()) == pytest.approx(0.1, abs=0.019)


def test_a_tie_is_lost() -> None:
    features = normalize(torch.ones(5, 4), dim=1)
    rows = torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert compute_wins(features[:2], features, rows).mean() == 0.0


def test_clip_score_is_the_plain_cosine() -> None:
    images = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(compute_clip_scores(images, texts), torch.tensor([1.0, 0.6, -1.0]))


def test_nan_is_refused() -> None:
    bad = torch.full((2, 4), float("nan"))
    with pytest.raises(EvaluationError, match="CLIP features of the generated images"):
        compute_clip_scores(bad, torch.ones(2, 4))
