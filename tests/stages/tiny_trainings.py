"""Several trainings in one program, for torchrun: starting processes costs more than they do.

``python -m tests.stages.tiny_trainings FOLDER JSON``: ``{name of the output: changed parameters}``.
A training that is refused leaves its message in ``<name>.txt``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from clipgan.errors import ConfigError
from clipgan.training.distributed import join_processes
from tests.stages.tiny_training import run_training, tiny_params

ROOT = Path(__file__).parents[2]


def run_in_two_processes(world: Path, root: Path, trainings: dict[str, dict[str, Any]]) -> None:
    """Run the trainings under torchrun in ``root``, on the data of ``world``."""
    for name in ("images", "features"):
        shutil.copytree(world / name, root / name)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.stages.tiny_trainings", str(root), json.dumps(trainings)]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    with join_processes(os.environ, "cpu") as processes:
        for name, changes in json.loads(sys.argv[2]).items():
            try:
                run_training(root, tiny_params(changes), output=name, processes=processes)
            except ConfigError as error:
                if processes.is_main:
                    (root / f"{name}.txt").write_text(str(error))
