"""Codes in the latents: what CLIP features leave open, and generators that listen to latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.data.batches import TrainingData
from clipgan.training.latent_codes import THUMBNAIL_PX, fit_latent_codes, fit_training_codes
from tests.params import params_with

DIM, COUNT, SIDE = 6, 512, 16
LUMA, RED_BLUE = (1.0, 1.0, 1.0), (1.0, 0.0, -1.0)


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _wave(colour: tuple[float, float, float], row: int, column: int) -> Tensor:
    """One cosine wave of a thumbnail by its closed form, (3, 8, 8), of length 1."""
    places = (torch.arange(THUMBNAIL_PX) + 0.5) * torch.pi / THUMBNAIL_PX
    wave = torch.outer(torch.cos(row * places), torch.cos(column * places))
    both = torch.tensor(colour).view(3, 1, 1) * wave
    return both / both.norm()


def _make_images(waves: list[Tensor], spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Images of ``waves``, whose heights features tell in part and hidden numbers the rest; those
    of the first wave are ``spread`` times as far apart."""
    features = F.normalize(_draw(COUNT, DIM, seed=1), dim=1)
    hidden = _draw(COUNT, len(waves), seed=2)
    hidden[:, 0] *= spread
    heights = 0.3 + features @ _draw(DIM, len(waves), seed=4) + hidden
    thumbnails = torch.einsum("nk,kchw->nchw", heights, torch.stack(waves))
    return F.interpolate(thumbnails, SIDE, mode="nearest"), features, hidden


FIRST_FIVE = [
    _wave(LUMA, 0, 0),
    _wave(LUMA, 0, 1),
    _wave(LUMA, 1, 0),
    _wave(RED_BLUE, 0, 0),
    _wave((1.0, -2.0, 1.0), 0, 0),
]


def test_codes_are_the_lowest_frequencies_that_features_leave_open() -> None:
    images, features, hidden = _make_images(FIRST_FIVE)
    codes = fit_latent_codes(zip(images.split(64), features.split(64), strict=True), 5)
    encoded = codes.encode(images, features)
    torch.testing.assert_close(encoded.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(encoded.T @ encoded / COUNT, torch.eye(5), atol=1e-3, rtol=0)
    # Each keeps its place and its sign; hidden numbers are correlated a little by chance.
    correlations = torch.corrcoef(torch.cat([encoded, hidden], dim=1).T)[:5, 5:]
    assert correlations.diagonal().min() > 0.95


def test_higher_frequencies_change_nothing() -> None:
    images, features, _ = _make_images(FIRST_FIVE)
    codes = fit_latent_codes([(images, features)], 3)
    higher = _wave(LUMA, 2, 1) + _wave(RED_BLUE, 1, 1) + _wave(LUMA, 0, 7)
    moved = images + F.interpolate(higher[None], SIDE, mode="nearest")
    expected = codes.encode(images, features)
    torch.testing.assert_close(codes.encode(moved, features), expected, atol=1e-4, rtol=1e-4)


def test_codes_mean_the_same_in_another_data_set() -> None:
    """A generator that is fine-tuned finds in its latents what it has learned to read there."""
    images, features, _ = _make_images(FIRST_FIVE)
    others, other_features, _ = _make_images(FIRST_FIVE, spread=0.2)
    own = fit_latent_codes([(images, features)], 5).encode(images, features)
    foreign = fit_latent_codes([(others, other_features)], 5).encode(images, features)
    assert torch.corrcoef(torch.cat([own, foreign], dim=1).T)[:5, 5:].diagonal().min() > 0.95


def test_codes_tell_nothing_of_the_feature() -> None:
    images, features, _ = _make_images(FIRST_FIVE)
    encoded = fit_latent_codes([(images, features)], 3).encode(images, features)
    # The ridge leaves a little of the feature.
    assert (encoded.T @ (features - features.mean(0)) / COUNT).abs().max() < 0.01


def test_the_same_data_have_the_same_codes_whatever_the_batches() -> None:
    images, features, _ = _make_images(FIRST_FIVE)
    whole = fit_latent_codes([(images, features)], 2)
    parts = fit_latent_codes(zip(images.split(100), features.split(100), strict=True), 2)
    assert whole.num_dims == parts.num_dims == 2
    torch.testing.assert_close(whole.whitening, parts.whitening)


def test_a_training_fits_them_to_its_own_images_and_features() -> None:
    images, features, _ = _make_images(FIRST_FIVE)
    stored = features.numpy().astype(np.float16)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).numpy()
    data = TrainingData(pixels, stored, stored, np.arange(COUNT + 1))
    # What the conditions are is of no weight, however noisy.
    config = params_with(
        {
            "train.warm_up_images": 64,
            "train.latent_codes": 2,
            "train.pseudo_text.noise_level": 5.0,
        }
    ).train
    fitted = fit_training_codes(config, data, torch.device("cpu"))
    shown = torch.from_numpy(pixels).float() / 127.5 - 1
    expected = fit_latent_codes([(shown, features)], 2)
    assert fitted is not None
    codes, reference = fitted.encode(shown, features), expected.encode(shown, features)
    # float16 features and the order of sums alone differ.
    torch.testing.assert_close(codes, reference, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("key", ["warm_up_images", "latent_codes"])
def test_none_are_fitted_where_latents_carry_none_or_reconstruct_nothing(key: str) -> None:
    changes = {"warm_up_images": 64, "latent_codes": 2, "lafite.losses.reconstruction_weight": 0.0}
    config = params_with({f"train.{name}": value for name, value in (changes | {key: 0}).items()})
    blank = np.zeros((COUNT, DIM), np.float16)
    pixels = np.zeros((COUNT, 3, SIDE, SIDE), np.uint8)
    data = TrainingData(pixels, blank, blank, np.arange(COUNT + 1))
    assert fit_training_codes(config.train, data, torch.device("cpu")) is None
