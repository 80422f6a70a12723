"""What a sampler asks of a family's generator beside images: its styles, where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipgan.errors import ConfigError
from clipgan.generation.styles import StyleChoice
from clipgan.models.networks import Generator


class FamilySampling:
    """Of a generator without styles; families that have them override all of it.

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
        """Layers whose styles can be mixed or truncated apart; 0: there are none."""
        return 0

    @property
    def latent_average(self) -> Tensor:
        """(style_dim,) float32 on the CPU: mean style of the training, what truncation pulls to.

        Raises:
            ConfigError: there are no styles.
        """
        raise ConfigError(f"{self.title}'s generator has no styles and no average of them")

    def check(self, choice: StyleChoice) -> None:
        """Refuse what this generator cannot do.

        Raises:
            ConfigError: something is asked of styles that it does not have.
        """
        asked = {
            f"truncation = {choice.truncation}": choice.truncation != 1.0,
            f"truncation_layers = {choice.truncation_layers}": choice.truncation_layers is not None,
            "style mixing": bool(choice.mixes),
        }
        for what, is_asked in asked.items():
            if is_asked:
                raise ConfigError(
                    f"{what}: {self.title}'s generator has no styles; leave it out, or use "
                    "latent_truncation, such as 1.5"
                )

    def generate(
        self, latents: Tensor, mixed: Sequence[Tensor], texts: Tensor, choice: StyleChoice
    ) -> Tensor:
        """Images (N, 3, R, R) float32, not clamped.

        Args:
            latents: (N, latent_dim).
            mixed: of each of ``choice.mixes``, latents of the same shape.
            texts: (N, text_dim), as the generator was trained to be shown them.
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
