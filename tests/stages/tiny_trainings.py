"""Several trainings in one program, for torchrun: starting processes costs more than they do.

``python -m tests.stages.tiny_trainings FOLDER JSON``: ``{name of the output: changed parameters}``.
A training that is refused leaves its message in ``<name>.txt``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from clipgan.errors import ConfigError
from clipgan.training.distributed import join_processes
from tests.stages.tiny_training import run_training, tiny_params

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
