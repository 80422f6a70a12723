"""A condition has one target: the image its feature is of, whichever way that image is shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clipgan.families.lafite.training.start import build_lafite_networks
from clipgan.families.lafite.training.step import LafiteStep
from tests.params import params_with
from tests.unit.training import tiny_galip_step
from tests.unit.training.step_parts import draw_batch, mirror_batch, seed_step
from tests.unit.training.test_lafite_step import BATCH, CHANGES, CLIP_SIDE, DIM, SIDE, Eye


def run_lafite(warm_up_images: int, mirrored: bool) -> float:
    config = params_with({**CHANGES, "train.warm_up_images": warm_up_images}).train
    step = LafiteStep(build_lafite_networks(config, DIM), Eye(), config, clip_side_px=CLIP_SIDE)
    batch = draw_batch(BATCH, SIDE, DIM)
    return step.step(mirror_batch(batch) if mirrored else batch, 0, seed_step(0))["reconstruction"]


def run_galip(warm_up_images: int, mirrored: bool) -> float:
    step = tiny_galip_step.build_step(
        {"losses.reconstruction_weight": 50.0}, {"warm_up_images": warm_up_images}
    )
    batch = tiny_galip_step.tiny_batch()
    return step.step(mirror_batch(batch) if mirrored else batch, 0, seed_step(0))["reconstruction"]


@pytest.mark.parametrize("warm_up_images", [0, 64])
@pytest.mark.parametrize("run", [run_lafite, run_galip])
def test_the_distance_does_not_see_the_mirror(
    run: Callable[[int, bool], float], warm_up_images: int
) -> None:
    assert run(warm_up_images, True) == run(warm_up_images, False)
