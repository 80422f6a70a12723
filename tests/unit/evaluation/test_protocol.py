from __future__ import annotations

import json

import pytest

from clipgan.errors import EvaluationError
from clipgan.evaluation.protocol import (
    MetricValue,
    Protocol,
    build_value,
    compare,
    find_difference,
    parse_metric_value,
)

PROTOCOL = Protocol(
    metric="kid_efficientnet_lite0",
    extractor="efficientnet-lite0/pooled-1280",
    extractor_sha256="579",
    independent=True,
    reference_split="train",
    reference_count=1000,
    reference_fingerprint="abc",
    generated_count=1000,
    captions="one each",
    seed=0,
    resize="to 224 px",
    truncation=1.0,
    clip={"model": "small"},
    settings={"subset_size": 500},
)
CHANGES = {
    "metric": "fd",
    "extractor": "inception",
    "extractor_sha256": "580",
    "independent": False,
    "reference_split": "validation",
    "reference_count": 999,
    "reference_fingerprint": "abd",
    "generated_count": 999,
    "captions": "all",
    "seed": 1,
    "resize": "to 299 px",
    "truncation": 0.7,
    "clip": {"model": "large"},
    "settings": {"subset_size": 100},
}


def value_of(number: float, **changes: object) -> MetricValue:
    return build_value(number, PROTOCOL.model_copy(update=changes))


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


def test_no_clip_differs_from_some_clip() -> None:
    difference = find_difference(PROTOCOL, PROTOCOL.model_copy(update={"clip": None}))
    assert difference is not None
    assert difference.startswith("clip:")


def test_json_round_trip_is_exact() -> None:
    value = build_value(0.1 + 0.2, PROTOCOL, standard_deviation=1e-17)
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
