"""GALIP's section refuses what cannot be trained."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.galip_parts import galip_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_input": "bicubic"}, "clip_input"),
        ({"text_gain": 0.0}, "greater than 0"),
        ({"generator.bridge_channels": 3}, "multiple of 2"),
        ({"generator.prompt_tokens": -1}, "greater than or equal to 0"),
        ({"generator.vit_weight": 0.0}, "set prompt_tokens to 0"),
        (
            {
                "generator.vit_weight": 0.0,
                "generator.bridge_weight": 0.0,
                "generator.prompt_tokens": 0,
            },
            "leave nothing to draw",
        ),
        ({"discriminator.tapped_blocks": []}, "at least 1"),
        ({"discriminator.tapped_blocks": [1, 1]}, "order it upwards"),
        ({"discriminator.tapped_blocks": [-1, 2]}, "greater than or equal to 0"),
        ({"losses.mismatched_share": 1.5}, "less than or equal to 1"),
        ({"losses.ma_gp_power": 1.0}, "greater than or equal to 2"),
        ({"loss_scale.initial_scale": 0.5}, "greater than or equal to 1"),
    ],
)
def test_bad_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        galip_config(changes)


def test_the_section_is_frozen_and_hashable() -> None:
    config = galip_config()
    assert hash(config) == hash(galip_config())
    with pytest.raises(ValidationError):
        config.text_gain = 1.0  # type: ignore[misc]
