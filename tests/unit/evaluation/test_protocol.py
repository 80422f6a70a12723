from __future__ import annotations

import json

import pytest

from clipgan.errors import EvaluationError
from clipgan.evaluation.intervals import Estimate
from clipgan.evaluation.protocol import (
    MetricValue,
    Protocol,
    build_value,
    compare,
    compare_values,
    find_difference,
    parse_metric_value,
)

PROTOCOL = Protocol(
    metric="kid_efficientnet_lite0",
    extractor="efficientnet-lite0/pooled-1280",
    extractor_sha256="579",
    independent=True,
    reference_split="train",
    reference="all images",
    reference_count=1000,
    reference_fingerprint="abc",
    generated_count=1000,
    captions="one each",
    seed=0,
    resize="to 224 px",
    truncation=1.0,
    clip={"model": "small"},
    settings={"subset_size": 500},
    name="fd-offline",
)
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


def value_of(number: float, **changes: object) -> MetricValue:
    return build_value(Estimate(number), PROTOCOL.model_copy(update=changes), 0.95)


def estimate_of(number: float) -> Estimate:
    return Estimate(number, (number - 0.25, number, number + 0.25), 1e-17)


def test_every_field_of_the_protocol_is_covered_below() -> None:
    assert set(CHANGES) == set(Protocol.model_fields)


def test_values_of_one_protocol_are_subtracted() -> None:
    assert compare(value_of(3.0), value_of(5.0)) == -2.0
    assert find_difference(PROTOCOL, PROTOCOL.model_copy()) is None


@pytest.mark.parametrize("field", list(CHANGES))
def test_refusal_names_the_field_that_differs(field: str) -> None:
    with pytest.raises(EvaluationError, match=rf"cannot be compared: {field}[.:]") as error:
        compare(value_of(1.0), value_of(1.0, **{field: CHANGES[field]}))
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
    value = build_value(estimate_of(3.0), PROTOCOL, 0.95)
    assert value.interval is not None
    assert value.interval.low < 3.0 < value.interval.high
    assert value.interval.high - 3.0 == pytest.approx(3.0 - value.interval.low)
    assert value.leave_out == (2.75, 3.0, 3.25)
    assert value_of(3.0).interval is None


def test_comparison_is_paired_by_the_groups_both_share() -> None:
    a = build_value(estimate_of(3.0), PROTOCOL, 0.95)
    b = build_value(estimate_of(2.5), PROTOCOL, 0.95)
    found = compare_values(a, b)
    # Every subset agrees on the difference, although each value alone is uncertain.
    assert found.difference == found.bounds.low == found.bounds.high == 0.5
    assert found.p_value == 0.0
    with pytest.raises(EvaluationError, match="has no interval"):
        compare_values(a, value_of(2.5))
    with pytest.raises(EvaluationError, match="cannot be compared: seed"):
        compare_values(a, value_of(2.5, seed=1))


def test_no_clip_differs_from_some_clip() -> None:
    difference = find_difference(PROTOCOL, PROTOCOL.model_copy(update={"clip": None}))
    assert difference is not None
    assert difference.startswith("clip:")


def test_json_round_trip_is_exact() -> None:
    value = build_value(estimate_of(0.1 + 0.2), PROTOCOL, 0.95)
    assert parse_metric_value(json.loads(json.dumps(value.model_dump(mode="json"))), "x") == value


def test_damaged_json_names_file_and_field() -> None:
    tree = value_of(1.0).model_dump(mode="json")
    del tree["protocol"]["truncation"]
    with pytest.raises(EvaluationError, match=r"e\.json: trained\.fd: protocol\.truncation"):
        parse_metric_value(tree, "e.json: trained.fd")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_value_must_be_finite(number: float) -> None:
    with pytest.raises(EvaluationError, match=r"kid_efficientnet_lite0 = (nan|inf)"):
        value_of(number)
