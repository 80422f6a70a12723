"""A tiny training that is tracked, as a program, for tests that stop it or its server.

``python -m tests.stages.tracked_training FOLDER TRACKING_URI [JSON OF CHANGED PARAMETERS]``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from clipgan.config import Params
from clipgan.data.shards import load_manifest
from clipgan.tracking import sender
from clipgan.tracking.run_contexts import open_training_run
from clipgan.training.fingerprint import compute_training_fingerprint
from clipgan.training.output import TrainingReport
from tests.stages.tiny_training import run_training, tiny_params


def run_tracked(root: Path, params: Params, tracking_uri: str) -> TrainingReport:
    """The train stage in ``root``, logged as the command logs it, but sent every 0.2 s."""
    sender.SEND_INTERVAL_SECONDS = 0.2
    fingerprint = compute_training_fingerprint(
        params.train,
        images_fingerprint=load_manifest(root / "images").fingerprint,
        features_dir=root / "features",
        initial_folder=None,
    )
    with open_training_run(
        tracking_uri=tracking_uri,
        experiment="tiny",
        folder=root / "work" / "train" / fingerprint[:16],
        fingerprint=fingerprint,
        run_name="tiny training",
        sample_system=False,
    ) as logger:
        return run_training(root, params, logger=logger)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, uri, *changes = sys.argv[1:]
    run_tracked(Path(folder), tiny_params(json.loads(changes[0]) if changes else None), uri)
