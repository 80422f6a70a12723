"""The relativistic pairing loss (Jolicoeur-Martineau, arXiv 1807.00734; R3GAN, arXiv 2501.05441).

Both networks look at the difference of a real and a generated image of one condition h. With
``d = D(x, h) - D(G(z, h), h)``, the discriminator's loss is ``E softplus(-d)`` and the generator's
``E softplus(d)``. A logit alone has no aim, so no constant can satisfy both sides and the loss has
no collapsed minimum; it converges with R1 and R2, not with either alone (R3GAN, section 2).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def compute_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of ``softplus(-(real - fake))``; (N,) twice, pair i in row i -> scalar."""
    return F.softplus(fake_logits - real_logits).mean()


def compute_generator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Mean of ``softplus(-(fake - real))``; (N,) twice, pair i in row i -> scalar."""
    return F.softplus(real_logits - fake_logits).mean()
