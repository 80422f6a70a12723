"""Codes in the latents: what conditions leave open, and generators that listen to their latents."""

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


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _make_pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Images that are a linear function of their conditions and of three hidden numbers."""
    texts, hidden = F.normalize(_draw(COUNT, DIM, seed=1), dim=1), _draw(COUNT, 3, seed=2)
    size = 3 * THUMBNAIL_PX**2
    directions = torch.linalg.qr(_draw(size, 3, seed=3)).Q.T * torch.tensor([[3.0], [2.0], [1.0]])
    thumbnails = 0.3 + texts @ _draw(DIM, size, seed=4) + hidden @ directions
    images = thumbnails.view(COUNT, 3, THUMBNAIL_PX, THUMBNAIL_PX)
    return F.interpolate(images, SIDE, mode="nearest"), texts, hidden


def test_codes_are_what_conditions_leave_open() -> None:
    images, texts, hidden = _make_pairs()
    codes = fit_latent_codes(zip(images.split(64), texts.split(64), strict=True), 3)
    encoded = codes.encode(images, texts)
    torch.testing.assert_close(encoded.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(encoded.T @ encoded / COUNT, torch.eye(3), atol=1e-3, rtol=0)
    # Largest first, up to the sign; hidden numbers are correlated a little by chance.
    correlations = torch.corrcoef(torch.cat([encoded, hidden], dim=1).T)[:3, 3:].abs()
    assert correlations.diagonal().min() > 0.95


def test_codes_tell_nothing_of_the_condition() -> None:
    images, texts, _ = _make_pairs()
    codes = fit_latent_codes([(images, texts)], 3)
    encoded = codes.encode(images, texts)
    # The ridge leaves a little of the condition.
    assert (encoded.T @ (texts - texts.mean(0)) / COUNT).abs().max() < 0.01


def test_the_same_data_have_the_same_codes_whatever_the_batches() -> None:
    images, texts, _ = _make_pairs()
    whole = fit_latent_codes([(images, texts)], 2)
    parts = fit_latent_codes(zip(images.split(100), texts.split(100), strict=True), 2)
    assert whole.num_dims == parts.num_dims == 2
    torch.testing.assert_close(whole.components, parts.components)


def test_a_training_fits_them_to_its_own_images_and_conditions() -> None:
    images, texts, _ = _make_pairs()
    features = texts.numpy().astype(np.float16)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).numpy()
    data = TrainingData(pixels, features, features, np.arange(COUNT + 1))
    config = params_with(
        {
            "train.warm_up_images": 64,
            "train.latent_codes": 2,
            "train.pseudo_text.pseudo_text_probability": 0.0,
            "train.pseudo_text.true_text_noise_level": 0.0,
        }
    ).train
    fitted = fit_training_codes(config, data, None, torch.device("cpu"))
    shown = torch.from_numpy(pixels).float() / 127.5 - 1
    expected = fit_latent_codes([(shown, texts)], 2)
    assert fitted is not None
    codes, reference = fitted.encode(shown, texts), expected.encode(shown, texts)
    # float16 features and the order of sums alone differ.
    torch.testing.assert_close(codes, reference, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("key", ["warm_up_images", "latent_codes"])
def test_none_are_fitted_where_latents_carry_none_or_reconstruct_nothing(key: str) -> None:
    changes = {"warm_up_images": 64, "latent_codes": 2, "lafite.losses.reconstruction_weight": 0.0}
    config = params_with({f"train.{name}": value for name, value in (changes | {key: 0}).items()})
    blank = np.zeros((COUNT, DIM), np.float16)
    pixels = np.zeros((COUNT, 3, SIDE, SIDE), np.uint8)
    data = TrainingData(pixels, blank, blank, np.arange(COUNT + 1))
    assert fit_training_codes(config.train, data, None, torch.device("cpu")) is None
