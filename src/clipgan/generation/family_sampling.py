"""What a sampler needs of a family's generator: images, and styles where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipgan.errors import ConfigError
from clipgan.generation.styles import StyleChoice
from clipgan.models.networks import Generator


class FamilySampling:
    """Sampling from a generator without styles; families with styles override all of it.

    A family's part ``sampling`` is such a class.
    """

    title = "this family"
    """The family's name in messages."""

    def __init__(self, generator: Any) -> None:
        """``generator``: of the family, on its device."""
        self.generator: Generator = generator
        self.dtype = torch.float32

    def compute_in(self, dtype: torch.dtype) -> None:
        """Number format of the layers that may leave float32; images are float32 always."""
        self.dtype = dtype

    @property
    def num_layers(self) -> int:
        """Number of layers whose styles can be mixed or truncated separately; 0: no styles."""
        return 0

    @property
    def latent_average(self) -> Tensor:
        """(style_dim,) float32 on the CPU, the mean style of the training, which truncation moves
        to.

        Raises:
            ConfigError: there are no styles.
        """
        raise ConfigError(f"{self.title}'s generator has no styles and no average of them")

    def check(self, choice: StyleChoice) -> None:
        """Refuse a choice that this generator does not support.

        Raises:
            ConfigError: the choice changes styles, which this generator does not have.
        """
        changes = {
            f"truncation = {choice.truncation}": choice.truncation != 1.0,
            f"truncation_layers = {choice.truncation_layers}": choice.truncation_layers is not None,
            "style mixing": bool(choice.mixes),
        }
        for what, is_changed in changes.items():
            if is_changed:
                raise ConfigError(
                    f"{what}: {self.title}'s generator has no styles; leave it out, or use "
                    "latent_truncation, such as 1.5"
                )

    def generate(
        self, latents: Tensor, mixed: Sequence[Tensor], texts: Tensor, choice: StyleChoice
    ) -> Tensor:
        """Generate images (N, 3, R, R) float32, not clamped.

        Args:
            latents: (N, latent_dim).
            mixed: latents of the same shape for each of ``choice.mixes``.
            texts: (N, text_dim), as the generator was trained to take them.
        """
        del mixed, choice
        # One call a picture: nothing that autocast could keep is used twice.
        with torch.autocast(
            latents.device.type,
            self.dtype,
            enabled=self.dtype != torch.float32,
            cache_enabled=False,
        ):
            images: Tensor = self.generator(latents, texts)
        return images
