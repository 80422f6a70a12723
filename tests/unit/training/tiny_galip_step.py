"""GALIP's step at a size for unit tests."""

from __future__ import annotations

from typing import Any

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.galip.networks.vit_features import VitTower
from clipgan.families.galip.training.start import build_galip_networks
from clipgan.families.galip.training.step import GalipStep
from tests.galip_parts import EMBED_DIM, build_tower, galip_tree
from tests.params import params_with
from tests.unit.training.step_parts import draw_batch, seed_step

SIDE, BATCH = 16, 4


def build_config(
    train: dict[str, Any] | None = None, galip: dict[str, Any] | None = None
) -> TrainConfig:
    settings = {
        "family": "galip",
        "resolution_px": SIDE,
        "precision": "fp32",
        "batch_size": BATCH,
        "augmentation.kind": "none",
        "galip": galip_tree(galip),
    } | (train or {})
    return params_with({f"train.{key}": value for key, value in settings.items()}).train


def only_diffaugment(*policies: str) -> dict[str, Any]:
    return {"augmentation.kind": "diffaugment", "augmentation.policies": list(policies)}


def build_step(
    galip: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    tower: VitTower | None = None,
    seed: int = 0,
    **more: Any,
) -> GalipStep:
    tower, config = tower or build_tower(), build_config(train, galip)
    networks = build_galip_networks(config.galip, tower, resolution_px=SIDE, seed=seed)
    return GalipStep(networks, tower, config, **more)


def tiny_batch(seed: int = 0) -> Batch:
    return draw_batch(BATCH, SIDE, EMBED_DIM, seed=seed)


def run_step(step: GalipStep, images_seen: int = 0, seed: int = 0) -> dict[str, float]:
    return step.step(tiny_batch(images_seen), images_seen, seed_step(images_seen, seed=seed)).read()
