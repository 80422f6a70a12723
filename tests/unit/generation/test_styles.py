"""Truncation of latents and styles, style mixing, the latent average."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clipgan.errors import ConfigError
from clipgan.families.lafite.sampling import compute_styles
from clipgan.generation.sampler import Sampler
from clipgan.generation.styles import (
    StyleChoice,
    StyleMix,
    draw_latents,
    parse_style_mixes,
    truncate_latents,
)
from clipgan.images import to_uint8
from clipgan.models.bundle import load_bundle
from tests.mlflow_stores import save_tiny_bundle
from tests.unit.models.test_lafite import build_generator
from tests.unit.tracking.tiny_sampler import TinyTextEncoder, load_tiny_sampler

CPU = torch.device("cpu")
PROMPT = ["a red apple"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return save_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def sampler(bundle: Path) -> Sampler:
    return load_tiny_sampler(bundle, device=CPU)


class TestLatents:
    def test_they_keep_their_quantiles_and_end_at_the_limit(self) -> None:
        latents = draw_latents(0, 200, 100).flatten()
        cut = truncate_latents(latents, 1.5)
        assert cut.abs().max() <= 1.5
        order = latents.argsort()
        assert (cut[order].diff() >= 0).all()
        # Of a normal distribution cut off at +-t: variance 1 - 2 t phi(t) / (Phi(t) - Phi(-t)).
        t, density = 1.5, np.exp(-(1.5**2) / 2) / np.sqrt(2 * np.pi)
        variance = 1 - 2 * t * density / (2 * 0.9331928 - 1)
        assert float(cut.var()) == pytest.approx(variance, rel=0.03)

    @pytest.mark.parametrize("limit", [8.0, 1e6])
    def test_a_far_limit_changes_nothing(self, limit: float) -> None:
        latents = draw_latents(1, 50, 100)
        assert torch.allclose(truncate_latents(latents, limit), latents, atol=1e-5)

    @pytest.mark.parametrize("limit", [1e-3, 0.5, 3.0])
    def test_it_is_odd_and_finite_at_the_ends(self, limit: float) -> None:
        ends = torch.tensor([-40.0, -5.0, 0.0, 5.0, 40.0])
        cut = truncate_latents(ends, limit)
        assert torch.isfinite(cut).all()
        assert torch.equal(cut, -cut.flip(0))
        assert float(cut[-1]) == pytest.approx(limit)

    def test_the_sampler_draws_them(self, sampler: Sampler) -> None:
        plain = sampler.sample(PROMPT, seed=0, num_images=2)
        cut = sampler.sample(PROMPT, seed=0, num_images=2, latent_truncation=0.3)
        assert not torch.equal(plain, cut)
        assert torch.equal(
            sampler.sample(PROMPT, seed=0, num_images=2, latent_truncation=1e6), plain
        )


class TestMixing:
    def test_every_layer_of_another_seed_is_that_seed(self, sampler: Sampler) -> None:
        last = sampler.num_layers - 1
        mixed = sampler.sample(PROMPT, seed=0, num_images=3, mixes=[StyleMix(9, 0, last)])
        assert torch.equal(mixed, sampler.sample(PROMPT, seed=9, num_images=3))

    def test_named_layers_alone_change(self) -> None:
        generator = build_generator(16)
        first, second, third = (draw_latents(seed, 2, 5) for seed in (0, 1, 2))
        choice = StyleChoice(mixes=(StyleMix(1, 1, 3), StyleMix(2, 3, 3)))
        styles = compute_styles(generator, first, [second, third], choice)
        own, other, last = (generator.mapping(z) for z in (first, second, third))
        assert styles.shape == (2, generator.num_layers, 7)
        assert torch.equal(styles[:, :1], own[:, :1])
        assert torch.equal(styles[:, 1:3], other[:, 1:3])
        assert torch.equal(styles[:, 3:4], last[:, 3:4])
        assert torch.equal(styles[:, 4:], own[:, 4:])

    def test_an_image_depends_on_its_own_request_only(self, sampler: Sampler) -> None:
        mixes = [StyleMix(9, 1, 2)]
        together = sampler.sample(["a dog", *PROMPT], seed=4, num_images=3, mixes=mixes)
        alone = sampler.sample(PROMPT, seed=4, num_images=2, mixes=mixes)
        assert torch.equal(alone, together[3:5])
        assert not torch.equal(alone, sampler.sample(PROMPT, seed=4, num_images=2))

    def test_texts_are_read(self) -> None:
        assert parse_style_mixes([]) == ()
        assert parse_style_mixes(["7:0-3", " 12 : 5 "]) == (StyleMix(7, 0, 3), StyleMix(12, 5, 5))

    @pytest.mark.parametrize("text", ["", "7", "7:", "7:a", "-1:0-2", "7:0-3-4", "7:1.5"])
    def test_texts_that_cannot_be_read_are_named(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"mix = '.*': write SEED:FIRST-LAST"):
            parse_style_mixes([text])


class TestTruncation:
    def test_it_stops_at_the_named_layers(self, sampler: Sampler) -> None:
        def sample(layers: int | None, truncation: float = 0.4) -> torch.Tensor:
            return sampler.sample(PROMPT, seed=0, truncation=truncation, truncation_layers=layers)

        assert torch.equal(sample(sampler.num_layers), sample(None))
        assert torch.equal(sample(0), sample(None, truncation=1.0))
        assert not torch.equal(sample(2), sample(None))

    def test_zero_is_the_image_of_the_latent_average(self, bundle: Path) -> None:
        loaded = load_bundle(bundle)
        average = torch.randn(8, generator=torch.Generator().manual_seed(0))
        loaded.generator.latent_average.copy_(average)
        sampler = Sampler(loaded, TinyTextEncoder(), CPU)  # type: ignore[arg-type]
        assert torch.equal(sampler.latent_average, average)
        styles = average.expand(1, sampler.num_layers, 8)
        text = TinyTextEncoder().encode_texts(PROMPT)
        with torch.inference_mode():
            wanted = to_uint8(loaded.generator.synthesis(styles, text, noise="const"))
        assert torch.equal(sampler.sample(PROMPT, seed=3, truncation=0.0), wanted)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"truncation_layers": -1}, "truncation_layers = -1: use a whole number from 0"),
        ({"truncation_layers": 5}, "truncation_layers = 5: .* from 0 to 4, the generator's layers"),
        ({"latent_truncation": 0.0}, "latent_truncation = 0.0: use a number above 0"),
        ({"latent_truncation": float("nan")}, "latent_truncation = nan"),
        ({"latent_truncation": float("inf")}, "latent_truncation = inf"),
        ({"mixes": [StyleMix(1, 2, 4)]}, "mix = 1:2-4: the generator's layers are 0 to 3"),
        ({"mixes": [StyleMix(1, 2, 1)]}, "mix = 1:2-1: its layers run backwards"),
        ({"mixes": [StyleMix(2**63, 0, 1)]}, "its seed is no whole number"),
    ],
)
def test_what_is_out_of_range_is_named(
    sampler: Sampler, choice: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sampler.sample(PROMPT, seed=0, **choice)  # type: ignore[arg-type]
