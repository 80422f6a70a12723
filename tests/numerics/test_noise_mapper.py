"""The official noise mapper's numbers, from the same weights."""

from __future__ import annotations

import torch

from clipgan.models.noise_mapper import NoiseMapper
from tests.numerics.lafite_reference import arrays, assert_matches, draw, unit

# The official linear1-4 give the shift, linear5-8 the logarithm of the deviation.
OFFICIAL = {"shift": (1, 2, 3, 4), "log_deviation": (5, 6, 7, 8)}


def build_mapper() -> NoiseMapper:
    mapper = NoiseMapper(dim=512, hidden_dim=1024)
    with torch.no_grad():
        for ours, numbers in OFFICIAL.items():
            layers = [m for m in getattr(mapper, ours) if isinstance(m, torch.nn.Linear)]
            for layer, number in zip(layers, numbers, strict=True):
                weight = draw(f"linear{number}.weight", tuple(layer.weight.shape))
                layer.weight.copy_(weight / layer.in_features**0.5)
                layer.bias.copy_(0.1 * draw(f"linear{number}.bias", tuple(layer.bias.shape)))
    return mapper.eval().requires_grad_(False)


def test_every_intermediate_is_the_official_one() -> None:
    mapper = build_mapper()
    features, noise = unit(draw("mapper/x", (4, 512))), draw("mapper/noise", (4, 512))
    assert torch.allclose(features, arrays()["mapper.x"], atol=1e-6)
    assert_matches(mapper.shift(features), "mapper.mu")
    assert_matches(mapper.log_deviation(features), "mapper.logstd")
    assert_matches(mapper.draw_offsets(features, noise), "mapper.out")
    assert_matches(mapper(features, noise), "mapper.pseudo")
