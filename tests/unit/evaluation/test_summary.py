"""What made-up values are said to show."""

from __future__ import annotations

import pytest

from clipgan.evaluation.report.summary import summarise
from clipgan.metrics.comparison import compare_models
from clipgan.metrics.evaluations import Evaluation
from clipgan.metrics.table import build_table
from clipgan.metrics.values import MetricValue
from tests.metric_values import value_of

Values = dict[str, dict[str, MetricValue]]


def summarise_pair(values: Values) -> tuple[str, ...]:
    return summarise(values, compare_models(values, "initial"))


class TestChanges:
    def test_equal_values_show_no_difference_whatever_the_points_say(self) -> None:
        values: Values = {
            "trained": {
                "fd_x": value_of("fd_x", 73.4, 1.5),
                "clip_score": value_of("clip_score", 0.4, 0.3),
            },
            "initial": {
                "fd_x": value_of("fd_x", 73.6, 1.2),
                "clip_score": value_of("clip_score", 0.41, 0.2),
            },
        }
        assert summarise_pair(values) == (
            "trained against initial, paired: no difference shown in any of 2 metrics.",
        )

    def test_better_worse_and_the_rest_are_told_apart(self) -> None:
        values: Values = {
            "trained": {
                "fd_x": value_of("fd_x", 60.0, 1.0),
                "clip_score": value_of("clip_score", 0.1, 0.01),
                "precision_x": value_of("precision_x", 0.3, 0.02),
                "kid_x": value_of("kid_x", 0.3, 0.02, seed=7),
            },
            "initial": {
                "fd_x": value_of("fd_x", 70.0, 1.0),
                "clip_score": value_of("clip_score", 0.3, 0.01),
                "precision_x": value_of("precision_x", 0.31, 0.01),
                "kid_x": value_of("kid_x", 0.3, 0.02),
            },
        }
        assert summarise_pair(values) == (
            "trained against initial, paired: better in fd_x; worse in clip_score; "
            "no difference shown in the other 1.",
        )
        table = build_table(Evaluation(values, baseline="initial"))
        assert {row.metric: row.verdict for row in table.rows} == {
            "fd_x": "better",
            "clip_score": "worse",
            "precision_x": "no difference shown",
            "kid_x": "not comparable",
        }


class TestVariety:
    @pytest.mark.parametrize(
        ("metric", "number", "said"),
        [
            ("recall_x", 0.0, "No variety: recall_x is 0 (trained), so"),
            ("cub/recall", 0.004, "No variety: cub/recall is 0.004 (trained), so"),
            ("recall_x", 0.02, None),
            ("precision_x", 0.0, None),
            (
                "caption_diversity_x",
                0.007,
                "No variety: caption_diversity_x is 0.007 (trained), so a",
            ),
            ("caption_diversity_x", 0.03, None),
        ],
    )
    def test_no_variety_is_said(self, metric: str, number: float, said: str | None) -> None:
        found = summarise({"trained": {metric: value_of(metric, number, 0.0)}}, [])
        assert [sentence.startswith(said or "?") for sentence in found] == ([True] if said else [])

    def test_diversity_is_told_as_a_share_of_that_of_real_images(self) -> None:
        name = "caption_diversity_x"
        real = value_of(name, 0.4, settings={"samples_per_caption": 4})
        values = {"trained": {name: value_of(name, 0.1)}, "initial": {name: value_of(name, 0.02)}}
        assert summarise({**values, "real": {name: real}}, []) == (
            "Variety beside that of real images of one concept in 4 looks, by caption_diversity_x: "
            "0.1 of 0.4, 25% (trained); 0.02 of 0.4, 5% (initial).",
        )
        assert summarise(values, []) == (), "nothing to hold it against"


class TestConcepts:
    def test_accuracy_stands_between_chance_and_ceiling(self) -> None:
        name, settings = "concept_accuracy", {"concepts": 100}
        values = {
            model: {name: value_of(name, number, settings=settings)}
            for model, number in (("trained", 0.4), ("initial", 0.1))
        }
        told = "The right concept, by concept_accuracy: 0.4 (trained), 0.1 (initial); chance 0.01"
        assert summarise(values, []) == (f"{told}.",)
        ceiling = "concept_accuracy_ceiling_bold"
        real = {ceiling: value_of(ceiling, 0.8, settings=settings)}
        found = summarise({**values, "real": real}, [])
        assert found == (f"{told}, ceiling 0.8 (real images in look bold).",)


class TestClip:
    @staticmethod
    def describe(metric: str, trained: float, real: float, **changes: object) -> tuple[str, ...]:
        settings = {"candidates": 100} if metric.startswith("r_") else {}
        return summarise(
            {
                name: {metric: value_of(metric, number, spread, settings=settings, **changes)}
                for name, number, spread in (("trained", trained, 0.02), ("real", real, 0.01))
            },
            [],
        )

    @pytest.mark.parametrize("metric", ["r_precision", "clip_score"])
    def test_real_images_below_generated_ones(self, metric: str) -> None:
        (found,) = self.describe(metric, 0.4, 0.2, independent=False)
        shown = "worse (0.2) than the images of trained do (0.4)"
        assert found.startswith(f"Real images fit their captions {shown}, by {metric}. The CLIP ")
        assert "does not understand your images" in found
        assert found.endswith("choose another (features.clip_model).")

    def test_the_judges_own_key_is_named(self) -> None:
        (found,) = self.describe("clip_score_tiny", 0.4, 0.2, independent=True)
        assert found.endswith("choose another (evaluate.judge_clip_model).")

    def test_the_start_may_draw_what_clip_knows_better(self) -> None:
        numbers = (("trained", 0.2, 0.02), ("initial", 0.5, 0.02), ("real", 0.3, 0.01))
        values: Values = {
            name: {"clip_score": value_of("clip_score", number, spread, independent=False)}
            for name, number, spread in numbers
        }
        assert summarise(values, []) == ()

    def test_real_images_at_chance(self) -> None:
        (found,) = self.describe("r_precision", 0.005, 0.012, independent=False)
        assert found.startswith(
            "Real images fit their captions no better than by chance (0.012, chance 0.01)"
        )

    def test_models_of_one_kind_share_a_sentence(self) -> None:
        (found,) = summarise({name: {"recall": value_of("recall", 0.0, 0.0)} for name in "ab"}, [])
        assert found.startswith("No variety: recall is 0 (a), 0 (b), so")

    @pytest.mark.parametrize("trained", [0.3, 0.805])
    def test_a_clip_that_understands_is_left_alone(self, trained: float) -> None:
        assert self.describe("r_precision", trained, 0.8, independent=False) == ()
