"""LAFITE's networks."""

from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.models.networks import NetworkSpec

SPEC = NetworkSpec(LafiteGenerator, LafiteDiscriminator)

__all__ = ["SPEC", "LafiteDiscriminator", "LafiteGenerator"]
