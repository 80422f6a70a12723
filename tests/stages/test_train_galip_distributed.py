"""torchrun and GALIP: two processes on the CPU are one process with the same batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stages.tiny_galip import CHANGES, TinyVitClip, tiny_galip_params
from tests.stages.tiny_training import (
    assert_same_training,
    build_world,
    run_training,
    single_thread,
)
from tests.stages.tiny_trainings import run_in_two_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MIXED: dict[str, Any] = CHANGES | {
    # Reduced precision would hide what differs.
    "train.precision": "fp32",
    "train.pseudo_text.pseudo_text_probability": 0.5,
}
TRAININGS = {
    "mixed": MIXED,
    "centred": MIXED | {"train.pseudo_text.kind": "centred_gaussian"},
    # One row each: the mismatched text is always the other process's.
    "pairs": MIXED | {"train.batch_size": 2, "train.total_images": 24},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainings in one process."""
    root = tmp_path_factory.mktemp("one")
    build_world(root, clip=TinyVitClip())
    with single_thread():
        for name, changes in TRAININGS.items():
            run_training(root, tiny_galip_params(changes), output=name)
    return root


@pytest.fixture(scope="module")
def two(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trainings in two processes."""
    root = tmp_path_factory.mktemp("two")
    run_in_two_processes(one, root, TRAININGS)
    return root


@pytest.mark.parametrize("name", list(TRAININGS))
def test_two_processes_equal_one_with_the_double_batch(one: Path, two: Path, name: str) -> None:
    assert_same_training(two / name, one / name)
