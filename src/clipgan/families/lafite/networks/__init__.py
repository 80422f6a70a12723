"""LAFITE's networks."""

from __future__ import annotations

from typing import Any

from clipgan.errors import ConfigError
from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.families.lafite.networks.projected import ProjectedDiscriminator
from clipgan.models.networks import Discriminator, NetworkSpec

_DISCRIMINATORS: dict[str, type[LafiteDiscriminator | ProjectedDiscriminator]] = {
    "stylegan2": LafiteDiscriminator,
    "projected": ProjectedDiscriminator,
}


def build_discriminator(*, kind: str = "stylegan2", **architecture: Any) -> Discriminator:
    """The discriminator of a stored architecture; those without a kind are StyleGAN2's.

    Raises:
        ConfigError: the kind is unknown, or its network refuses the rest.
    """
    if kind not in _DISCRIMINATORS:
        raise ConfigError(f"kind = {kind!r}: use {' or '.join(_DISCRIMINATORS)}")
    return _DISCRIMINATORS[kind](**architecture)


SPEC = NetworkSpec(LafiteGenerator, build_discriminator)

__all__ = [
    "SPEC",
    "LafiteDiscriminator",
    "LafiteGenerator",
    "ProjectedDiscriminator",
    "build_discriminator",
]
