"""What several processes may share; that they equal one is in tests/stages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.config import TrainConfig
from clipgan.errors import ConfigError
from clipgan.training import distributed
from clipgan.training.distributed import SINGLE, Processes, check_batch_fits, join_processes
from tests.params import params_with


def _config(batch_size: int, group: int = 4, gather: bool = False) -> TrainConfig:
    changes: dict[str, Any] = {
        "train.batch_size": batch_size,
        "train.lafite.discriminator.minibatch_std_group": group,
        "train.lafite.losses.gather_negatives": gather,
    }
    return params_with(changes).train


def test_a_batch_that_fits_is_welcome() -> None:
    check_batch_fits(_config(16), Processes(1, 2))
    check_batch_fits(_config(16), Processes(0, 4))
    check_batch_fits(_config(2, gather=True), Processes(0, 2))
    check_batch_fits(_config(6, group=2), SINGLE)


@pytest.mark.parametrize(
    ("config", "count", "message"),
    [
        (_config(16), 3, r"batch_size = 16 is not divisible by 3 processes: use 15 or 18"),
        (_config(2), 3, r"batch_size = 2 is not divisible by 3 processes: use 3 or 6"),
        (_config(12, group=4), 2, r"6 images, .*minibatch_std_group = 4.*batch_size of 8"),
        (_config(2), 2, r"gives each of 2 processes one image.*use 4, or .*gather_negatives"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    config: TrainConfig, count: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_batch_fits(config, Processes(0, count))


def test_without_torchrun_there_is_one_process() -> None:
    with join_processes({}, "auto") as processes:
        assert processes == SINGLE
    with join_processes({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, "cpu") as processes:
        assert processes.is_main


def test_too_few_gpus_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment = {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
    with (
        pytest.raises(ConfigError, match=r"4 processes, but this machine has 2 GPUs"),
        join_processes(environment, "auto"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"cuda:1, but 4 processes cannot share a GPU: use auto"),
        join_processes(environment, "cuda:1"),
    ):
        pass


def test_one_process_talks_to_nobody() -> None:
    values = torch.rand(3)
    assert SINGLE.average(values) is values
    assert SINGLE.all_gather(values) is values
    assert SINGLE.all_reduce_max(15, torch.device("cpu")) == 15
    SINGLE.average_in_place([values])
    SINGLE.wait()


SLOW_LEAD = """
import sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from clipgan.training import distributed
from clipgan.training.distributed import join_processes
import os

begin = dist.init_process_group
dist.init_process_group = lambda backend: begin(backend, timeout=timedelta(seconds=2))
with join_processes(os.environ, "cpu") as together:
    if together.is_main:
        time.sleep(5)
    together.wait()
    # One write: what two processes print in pieces is mixed.
    print(f"together {int(together.average(torch.ones(1)))}\\n", end="", flush=True)
"""


def test_the_others_wait_for_a_lead_that_takes_longer_than_the_collectives_allow(
    tmp_path: Path,
) -> None:
    """As with NCCL's ten minutes: here two seconds, and a first process that takes five."""
    script = tmp_path / "slow_lead.py"
    script.write_text(SLOW_LEAD)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(script)]
    source = str(Path(distributed.__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("together 1") == 2
