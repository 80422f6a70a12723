"""GALIP's networks, and the frozen tower of CLIP that they are built around."""

from clipgan.families.galip.networks.discriminator import GalipDiscriminator
from clipgan.families.galip.networks.generator import GalipGenerator
from clipgan.models.networks import NetworkSpec

SPEC = NetworkSpec(GalipGenerator, GalipDiscriminator)

__all__ = ["SPEC", "GalipDiscriminator", "GalipGenerator"]
