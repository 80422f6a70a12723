"""Threads: what is measured, who keeps a number, who may change it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan import threads as threads_module
from clipgan.config import load_params
from clipgan.errors import ConfigError
from clipgan.threads import (
    choose_threads,
    follow_load,
    keep_threads,
    list_candidates,
    renew_threads,
)
from tests.params import PARAMS_YAML
from tests.unit.training.test_loop import RandomWalk, run_loop


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """Two, whatever the machine has, and what was there before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _prefer(count: int) -> Any:
    """Work that takes long with every other number of threads."""
    return lambda: time.sleep(0.001 if torch.get_num_threads() == count else 0.01)


@pytest.mark.parametrize(
    ("most", "candidates"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_candidates(most: int, candidates: list[int]) -> None:
    assert list_candidates(most) == candidates


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_fastest_number_is_chosen_and_kept(best: int) -> None:
    assert choose_threads([1, 2, 3], _prefer(best), seconds=0.1) == best
    assert torch.get_num_threads() == best


def test_it_can_be_measured_in_the_middle_of_an_evaluation() -> None:
    with torch.inference_mode():
        assert choose_threads([1, 2], seconds=0.05) in {1, 2}


def test_one_candidate_needs_no_measurement() -> None:
    assert choose_threads([3], lambda: pytest.fail("measured")) == 3


def _force_choice(monkeypatch: pytest.MonkeyPatch, *choices: int) -> list[list[int]]:
    """What measurements will find one after the other; collects their candidates."""
    asked: list[list[int]] = []
    queue = list(choices)

    def choose(candidates: list[int]) -> int:
        asked.append(candidates)
        found = candidates[0] if len(candidates) == 1 else queue.pop(0)
        torch.set_num_threads(found)
        return found

    monkeypatch.setattr(threads_module, "choose_threads", choose)
    return asked


def test_a_stage_without_exact_resume_follows_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _force_choice(monkeypatch, 1, 2)
    with follow_load("auto"):
        assert torch.get_num_threads() == 1
        renew_threads()
        assert len(asked) == 1, "it is not time yet"
        later = time.monotonic() + threads_module.INTERVAL_SECONDS
        monkeypatch.setattr(time, "monotonic", lambda: later)
        renew_threads()
        assert torch.get_num_threads() == 2
        # All numbers are tried again, not only those up to the last choice.
        assert asked == [[1, 2], [1, 2]]
    renew_threads()
    assert len(asked) == 2, "outside the stage"


@pytest.mark.parametrize("manager", [follow_load, keep_threads])
def test_a_number_is_a_number(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _force_choice(monkeypatch)
    with manager(3):
        assert torch.get_num_threads() == 3
        renew_threads()
    assert torch.get_num_threads() == 2
    assert asked == []


def test_a_training_chooses_once_and_a_resumed_one_keeps_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    asked = _force_choice(monkeypatch, 1)
    stopped = RandomWalk()
    stopped.signal_at = 20
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path, stopped, threads="auto")
    assert torch.get_num_threads() == 2, "the number outside is not the training's"
    report = run_loop(tmp_path, RandomWalk(), threads="auto")
    assert report.num_threads == 1
    assert asked == [[1, 2], [1]]
    assert "differ by rounding" not in caplog.text


def test_another_number_on_the_way_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = RandomWalk()
    stopped.signal_at = 20
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path, stopped, threads=2)
    assert run_loop(tmp_path, RandomWalk(), threads=1).num_threads == 1
    assert "2 threads went this far, now there are 1" in caplog.text


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5", "true", "'2'"])
def test_what_is_no_number_of_threads_is_refused(value: str, tmp_path: Path) -> None:
    text = PARAMS_YAML.read_text().replace("threads: auto", f"threads: {value}")
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"threads: .* use auto, or a whole number from 1"):
        load_params(path)
