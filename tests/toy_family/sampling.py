"""No styles."""

from clipgan.generation.family_sampling import FamilySampling


class ToySampling(FamilySampling):
    title = "toy"


SPEC = ToySampling
