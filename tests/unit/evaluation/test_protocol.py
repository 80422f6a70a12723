from __future__ import annotations

import json

import pytest

from clipgan.errors import EvaluationError
from clipgan.metrics.comparison import compare_values
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import MetricValue, Protocol, build_value, find_difference, parse_value
from tests.metric_values import PROTOCOL, value_of

CHANGES = {
    "metric": "fd",
    "extractor": "inception",
    "extractor_sha256": "580",
    "independent": False,
    "reference_split": "validation",
    "reference": "some images",
    "reference_count": 999,
    "reference_fingerprint": "abd",
    "generated_count": 999,
    "captions": "all",
    "seed": 1,
    "resize": "to 299 px",
    "truncation": 0.7,
    "clip": {"model": "large"},
    "settings": {"subset_size": 100},
    "name": "mine",
}


def kid(number: float, spread: float = 0.25, **changes: object) -> MetricValue:
    return value_of("kid_efficientnet_lite0", number, spread, **changes)


def alone(number: float) -> MetricValue:
    """A value of too few images for an interval."""
    return build_value(Estimate(number), PROTOCOL, 0.95, better="lower")


def test_every_field_of_the_protocol_is_covered_below() -> None:
    assert set(CHANGES) == set(Protocol.model_fields)


def test_a_protocol_does_not_differ_from_itself() -> None:
    assert find_difference(PROTOCOL, PROTOCOL.model_copy()) is None


@pytest.mark.parametrize("field", list(CHANGES))
def test_refusal_names_the_field_that_differs(field: str) -> None:
    other = kid(1.0).model_copy(
        update={"protocol": PROTOCOL.model_copy(update={field: CHANGES[field]})}
    )
    with pytest.raises(EvaluationError, match=rf"cannot be compared: {field}[.:]") as error:
        compare_values(kid(1.0), other)
    assert "\n" not in str(error.value)


def test_difference_inside_a_mapping_names_key_and_both_numbers() -> None:
    other = PROTOCOL.model_copy(update={"settings": {"subset_size": 100}})
    assert find_difference(PROTOCOL, other) == "settings.subset_size: 500 against 100"


def test_refusal_names_everything_that_differs() -> None:
    other = PROTOCOL.model_copy(update={"seed": 7, "reference_split": "validation"})
    assert find_difference(PROTOCOL, other) == (
        "reference_split: 'train' against 'validation'; seed: 0 against 7"
    )


def test_a_value_has_the_interval_of_its_subsets() -> None:
    value = kid(3.0)
    assert value.interval is not None
    assert value.interval.low < 3.0 < value.interval.high
    assert value.interval.high - 3.0 == pytest.approx(3.0 - value.interval.low)
    assert value.leave_out == (2.75, 3.25, 3.0)
    assert alone(3.0).interval is None


def test_comparison_is_paired_by_the_groups_both_share() -> None:
    found = compare_values(kid(3.0), kid(2.5))
    # Every subset agrees on the difference, although each value alone is uncertain.
    assert found.difference == found.low == found.high == 0.5
    assert found.p_value == 0.0
    assert (found.gain, found.verdict) == ((-0.5, -0.5, -0.5), "worse")
    with pytest.raises(EvaluationError, match="has no interval"):
        compare_values(kid(3.0), alone(2.5))
    with pytest.raises(EvaluationError, match="cannot be compared: seed"):
        compare_values(kid(3.0), kid(2.5, seed=1))


def test_no_clip_differs_from_some_clip() -> None:
    difference = find_difference(PROTOCOL, PROTOCOL.model_copy(update={"clip": None}))
    assert difference is not None
    assert difference.startswith("clip:")


def test_json_round_trip_is_exact() -> None:
    value = kid(0.1 + 0.2)
    assert parse_value(json.loads(json.dumps(value.model_dump(mode="json"))), "x") == value


def test_damaged_json_names_file_and_field() -> None:
    tree = kid(1.0).model_dump(mode="json")
    del tree["protocol"]["truncation"]
    with pytest.raises(EvaluationError, match=r"e\.json: trained\.fd: protocol\.truncation"):
        parse_value(tree, "e.json: trained.fd")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_value_must_be_finite(number: float) -> None:
    with pytest.raises(EvaluationError, match=r"kid_efficientnet_lite0 = (nan|inf)"):
        kid(number)


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        *((f"{name}_x", "lower") for name in ("fd", "kid", "cmmd", "path_length")),
        *((name, "lower") for name in ("fid", "fid_blur2", "memorised_share_x")),
        *((name, "higher") for name in ("clip_score", "inception_score", "soa_c", "density_x")),
    ],
)
def test_values_of_before_are_read_with_their_direction(metric: str, better: str) -> None:
    tree = value_of(metric, 0.5).model_dump(mode="json")
    del tree["better"]
    assert parse_value(tree, "x").better == better
