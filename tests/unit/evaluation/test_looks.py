"""Real images of one concept in several looks: what variety is held against."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.nn.functional import normalize

from clipgan.evaluation.spaces.extractors import EfficientNetLite0Extractor
from tests.unit.evaluation.test_measurement import (
    CONCEPTS,
    SIDE,
    build,
    config_with,
    draw_prompts,
    driver_of,
)
from tests.unit.evaluation.tiny_images import Drawing, build_images


def test_real_diversity_is_the_distance_between_looks_of_one_concept(tmp_path: Path) -> None:
    """Of the first six concepts, which come in all three looks."""
    looks = ("plain", "bold", "wild")
    patterns = {(concept, look): f"{concept} {look}" for concept in CONCEPTS for look in looks}
    drawings = [
        Drawing(concept, [concept], style=look, pattern=pattern)
        for (concept, look), pattern in patterns.items()
        if look != "wild" or concept in CONCEPTS[:6]
    ]
    config = config_with(num_concepts=8)
    driver = driver_of(build(build_images(tmp_path / "images", drawings, SIDE), config), config)
    found = driver.measure_real()["caption_diversity_efficientnet_lite0"]
    extractor = EfficientNetLite0Extractor()
    expected = []
    for concept in CONCEPTS[:6]:
        features = extractor(draw_prompts([patterns[concept, look] for look in looks]))
        cosines = normalize(features, dim=1) @ normalize(features, dim=1).T
        expected.append(float((1 - cosines).sum()) / 6)
    assert found.value == pytest.approx(sum(expected) / 6, rel=1e-4)
    assert found.value > 0.01
    assert (found.protocol.generated_count, found.protocol.settings) == (
        18,
        {"samples_per_caption": 3},
    )
    assert "caption_diversity_real" not in driver.skipped
