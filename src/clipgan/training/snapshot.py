"""A generator in the middle of its training, for an evaluation during the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipgan.models.bundle import BundleInfo, save_bundle
from clipgan.models.modality_gap import ModalityMeans
from clipgan.models.networks import Generator
from clipgan.training.conditions import Conditions
from clipgan.training.fine_tuning import Networks

EVALUATIONS_FOLDER = "evaluations"


@dataclass(frozen=True)
class Snapshot:
    """The averaged generator after ``images_seen`` images of this training.

    Attributes:
        info: the description of its bundle.
        folder: for the results; it is copied beside the finished generator.
    """

    images_seen: int
    generator_ema: Generator
    info: BundleInfo
    means: ModalityMeans | None
    folder: Path

    def save(self, folder: Path) -> None:
        """Write it as a bundle in fp32, as a checkpoint of this moment would give it."""
        save_bundle(folder, self.generator_ema, None, self.info, dtype="fp32", means=self.means)


def evaluate_snapshots(
    evaluate: Callable[[Snapshot], None] | None,
    networks: Networks[Any, Any],
    conditions: Conditions,
    *,
    family: str,
    initial: BundleInfo | None,
    folder: Path,
) -> Callable[[int], None] | None:
    """``evaluate`` as a function of the images seen; None where there is none."""
    if evaluate is None:
        return None

    def run(images_seen: int) -> None:
        info = BundleInfo(
            family=family,
            clip=dict(conditions.table.clip),
            resolution_px=networks.generator.resolution_px,
            images_seen=images_seen + (0 if initial is None else initial.images_seen),
        )
        evaluate(Snapshot(images_seen, networks.generator_ema, info, conditions.means, folder))

    return run
