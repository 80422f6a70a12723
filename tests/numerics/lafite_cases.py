"""Conditions, images and gradient checks that the parity tests of the losses share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipgan.config import ContrastiveKind
from clipgan.families.lafite.config import SemanticLogit
from clipgan.families.lafite.importer.names import WeightName
from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.models.pseudo_text import compute_pseudo_text
from tests.numerics.lafite_reference import build_discriminator, facts, inputs

CONDITIONS = ("paired", "langfree")


@dataclass(frozen=True)
class Form:
    """How semantic logits and contrastive terms are computed; ``name`` as the arrays have it."""

    name: str
    semantic_logit: SemanticLogit
    contrastive: ContrastiveKind

    def build_discriminator(self, tag: str) -> LafiteDiscriminator:
        return build_discriminator(tag, semantic_logit=self.semantic_logit)

    def contrast(self, tag: str, features: Tensor, texts: Tensor) -> Tensor:
        temperature = facts()["hyper"][tag]["temp"]
        return compute_contrastive_loss(features, texts, temperature, kind=self.contrastive)


FIXED = Form("fixed", "per_sample", "infonce")  # the paper's
OFFICIAL = Form("official", "batch_sum", "sharpened")  # the released code's


def condition(tag: str, name: str) -> Tensor:
    given = inputs(tag)
    if name == "paired":
        return compute_pseudo_text(given["text_features"], 0.1 / 0.9, given["noise"])
    return compute_pseudo_text(given["image_features"], 0.75 / 0.25, given["noise"])


def assert_gradients(
    module: nn.Module,
    names: Sequence[WeightName],
    section: str,
    noise_tolerance: float = 5e-4,
    tolerance: float = 5e-4,
) -> None:
    """Gradient norms of every parameter, relative, with a floor of 1e-3 of the largest.

    Noise strengths may get a tolerance of their own: theirs are sums that cancel. Through CLIP, a
    change of the weights by 2e-6 moves them by 1e-3 to 3e-2.
    """
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in module.named_parameters()
    }
    wanted = facts()["grads"][section]
    ours = {
        name.official: float(_select_rows(name, gradients).norm())
        for name in names
        if name.ours in gradients
    }
    assert set(ours) == set(wanted)
    floor = 1e-3 * max(wanted.values())
    for official, norm in wanted.items():
        bound = noise_tolerance if official.endswith("noise_strength") else tolerance
        found = ours[official]
        assert abs(found - norm) <= bound * max(norm, floor), (official, found, norm)


def _select_rows(name: WeightName, tensors: dict[str, Tensor]) -> Tensor:
    ours = tensors[name.ours]
    return ours if name.row is None else ours[name.row]


def synthesise(generator: LafiteGenerator, tag: str, texts: Tensor) -> Tensor:
    return generator.synthesis(generator.mapping(inputs(tag)["latents"]), texts, noise="const")
