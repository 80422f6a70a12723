"""The project's own params.yaml with single values changed, for tests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from clipgan.config import Params

PARAMS_YAML = Path(__file__).parents[1] / "params.yaml"
PAPER: dict[str, Any] = {
    "ingest.emoji_styles": ["openmoji"],
    "train.warm_up_images": 0,
    "train.latent_codes": 0,
    "train.lafite.discriminator.kind": "stylegan2",
    "train.lafite.losses.adversarial": "logistic",
    "train.lafite.losses.mismatched_share": 0.0,
    "train.lafite.losses.discriminator_contrastive_weight": 2.0,
    "train.lafite.losses.clip_contrastive_weight": 3.0,
    "train.batch_size": 16,
    "train.lafite.losses.reconstruction_weight": 50.0,
    "train.lafite.losses.reconstruction_fade_images": 0,
    "train.lafite.losses.r1_gamma": 2.0,
    "train.lafite.losses.path_length_weight": 2.0,
    "train.galip.losses.reconstruction_weight": 50.0,
    "train.galip.losses.reconstruction_fade_images": 0,
}
"""LAFITE against the discriminator of its paper, whatever params.yaml starts a user with."""


def params_with(changes: dict[str, Any] | None = None) -> Params:
    """Parameters of params.yaml after :data:`PAPER` and ``{"train.batch_size": 4, ...}``."""
    return Params.model_validate(tree_with(changes))


def tree_with(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The YAML tree behind :func:`params_with`; an unknown key in ``changes`` is an error."""
    tree = YAML(typ="safe", pure=True).load(PARAMS_YAML.read_text())
    for dotted, value in [*PAPER.items(), *(changes or {}).items()]:
        *sections, key = dotted.split(".")
        node = tree
        for section in sections:
            node = node[section]
        if key not in node:
            raise KeyError(f"{dotted} is not in params.yaml")
        # A whole section may be given: later changes must not reach into it.
        node[key] = copy.deepcopy(value)
    return tree
