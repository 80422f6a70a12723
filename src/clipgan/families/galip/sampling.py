"""Sampling from GALIP, which has no styles."""

from clipgan.generation.family_sampling import FamilySampling


class GalipSampling(FamilySampling):
    """Latents and texts alone decide its images."""

    title = "GALIP"


SPEC = GalipSampling
