"""One surface for both families: GALIP draws through CLIP's tower and knows no styles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.errors import ClipError, ConfigError
from clipgan.families.galip.networks.generator import GalipGenerator
from clipgan.generation.sampler import Sampler
from clipgan.generation.styles import StyleMix
from clipgan.models.bundle import BundleInfo, GeneratorBundle, load_bundle, save_bundle
from tests.galip_parts import GRID, TREE, WIDTH
from tests.mlflow_stores import save_tiny_bundle
from tests.stages.tiny_galip import TinyVitClip
from tests.stages.tiny_training import TinyClip

CPU = torch.device("cpu")


def save_galip(folder: Path, text_norm: str = "unit") -> Path:
    torch.manual_seed(0)
    generator = GalipGenerator(
        resolution_px=12,
        text_dim=TinyClip.embed_dim,
        text_gain=2.0,
        text_norm=text_norm,  # type: ignore[arg-type]
        vit_width=WIDTH,
        vit_grid_side=GRID,
        **TREE["generator"],
    )
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    info = BundleInfo("galip", TinyVitClip().fingerprint, 12, 5)
    save_bundle(folder, generator, None, info, dtype="fp32")
    return folder


def build_sampler(bundle: GeneratorBundle) -> Sampler:
    clip: Any = TinyVitClip()
    return Sampler(bundle, clip, CPU)


@pytest.fixture
def bundle(tmp_path: Path) -> GeneratorBundle:
    return load_bundle(save_galip(tmp_path / "bundle"))


def test_an_image_depends_on_prompt_seed_and_number_only(bundle: GeneratorBundle) -> None:
    sampler = build_sampler(bundle)
    together = sampler.sample(["a dog", "a rocket"], seed=5, num_images=3)
    assert together.shape == (6, 3, 12, 12)
    assert torch.equal(sampler.sample(["a rocket"], seed=5, num_images=2), together[3:5])
    assert len({image.numpy().tobytes() for image in together}) == 6
    assert len(sampler.sample_png(["a dog"], seed=1)) == 1


def test_latents_can_be_truncated(bundle: GeneratorBundle) -> None:
    sampler = build_sampler(bundle)

    def spread(limit: float | None) -> float:
        images = sampler.sample(["a dog"], seed=0, num_images=8, latent_truncation=limit)
        return float(images.float().std(0).mean())

    assert spread(None) > spread(0.5) > spread(0.01)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"truncation": 0.5}, r"truncation = 0\.5: GALIP's generator has no styles"),
        ({"truncation_layers": 2}, "truncation_layers = 2: GALIP's generator has no styles"),
        ({"mixes": [StyleMix(1, 0, 1)]}, "style mixing: GALIP's generator has no styles"),
        ({"latent_truncation": -1.0}, r"latent_truncation = -1\.0: use a number above 0"),
    ],
)
def test_styles_are_refused_in_one_line(
    bundle: GeneratorBundle, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        build_sampler(bundle).sample(["a dog"], seed=0, **asked)
    assert "\n" not in str(refusal.value)


def test_there_is_no_average_of_styles(bundle: GeneratorBundle) -> None:
    sampler = build_sampler(bundle)
    assert sampler.num_layers == 0
    with pytest.raises(ConfigError, match="no styles"):
        _ = sampler.latent_average
    with pytest.raises(ConfigError, match=r"truncation = 0\.9: GALIP has no styles"):
        bundle.generate(torch.zeros(1, 8), torch.zeros(1, 6), truncation=0.9)


def test_raw_texts_reach_a_generator_that_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []
    for text_norm in ("unit", "raw"):
        bundle = load_bundle(save_galip(tmp_path / text_norm, text_norm))
        bundle.generator.register_forward_pre_hook(
            lambda _module, given: shown.append(float(given[1].norm(dim=1)))
        )
        build_sampler(bundle).sample(["a dog"], seed=0)
    assert shown == pytest.approx([1.0, TinyVitClip.text_length], rel=1e-4)
    assert bundle.takes_raw_texts
    for prepare in (bundle.prepare_texts, bundle.prepare_images):
        with pytest.raises(ConfigError, match="stored features are of unit length"):
            prepare(torch.zeros(1, 6))


def test_a_clip_without_a_vit_is_refused(bundle: GeneratorBundle) -> None:
    clip: Any = TinyVitClip()
    clip.clip.visual = torch.nn.Conv2d(3, 3, 3)
    with pytest.raises(ClipError, match="GALIP needs open_clip's ViT"):
        Sampler(bundle, clip, CPU)


def test_lafites_images_are_those_of_the_network_itself(tmp_path: Path) -> None:
    bundle = load_bundle(save_tiny_bundle(tmp_path / "bundle"))
    latents, texts = torch.randn(2, bundle.latent_dim), torch.randn(2, 8)
    with torch.no_grad():
        for psi in (1.0, 0.5):
            wanted = bundle.generator(latents, texts, truncation=psi, noise="const")
            assert torch.equal(bundle.generate(latents, texts, truncation=psi), wanted)
    assert not bundle.takes_raw_texts


@pytest.mark.parametrize("family", ["lafite", "galip"])
def test_bf16_has_its_own_bytes_and_nearly_the_same_pictures(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    width = TinyClip.embed_dim
    path = save_galip(folder) if family == "galip" else save_tiny_bundle(folder, text_dim=width)
    clip: Any = TinyVitClip() if family == "galip" else TinyClip()

    def draw(precision: str) -> torch.Tensor:
        sampler = Sampler(load_bundle(path), clip, CPU, precision=precision)
        return sampler.sample(["a dog", "a rocket"], seed=5, num_images=2)

    full, short = draw("fp32"), draw("bf16")
    assert torch.equal(draw("bf16"), short)
    assert torch.equal(draw("fp32"), full)
    assert not torch.equal(short, full)
    # 2^-9 a rounding, some ten in a row, in grey levels of 127.5.
    assert float((short.float() - full.float()).abs().mean()) < 10 * 127.5 * 2**-9
