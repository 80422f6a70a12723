"""A base generator on a card for a number of minutes, in pieces small enough to carry away.

Every checkpoint is also written as a pack: weights in fp16 and Adam's second moments in bf16, no
file above 15 MiB. A call that finds a pack goes on from it; what half precision rounds off is far
below what a step changes, but the result is not that of one long call to the bit.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from bench.gpu.prepared import Prepared, load_carried_clip, load_prepared
from bench.gpu.results import Deadline, Results, Row
from clipgan.artifacts import atomic_path
from clipgan.config import MonitoringConfig, TrainConfig
from clipgan.data.batches import BatchLoader
from clipgan.families.registry import find_family
from clipgan.images import to_uint8
from clipgan.run_logger import RunLogger
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import SINGLE
from clipgan.training.family import TrainingSpec
from clipgan.training.history import Samples
from clipgan.training.loop import Schedule, TrainingLoop
from clipgan.training.state import StateTensors
from clipgan.training.warm_up import prepare_warm_up

PART = "base generator"
LARGEST_FILE = 15 * 2**20
ENDLESS = 10**12
PROGRESS = "progress"


class PackingStore(CheckpointStore):
    """Writes a pack beside every checkpoint, and a checkpoint from a pack."""

    def __init__(self, folder: Path, pack: Path, fingerprint: str) -> None:
        super().__init__(folder, keep=2, fingerprint=fingerprint)
        self.pack = pack

    def save(
        self,
        images_seen: int,
        progress: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
    ) -> Path:
        """A checkpoint and its pack."""
        path = super().save(images_seen, progress, tensors)
        save_pack(self.pack, images_seen, progress, tensors, self.fingerprint)
        return path

    def adopt(self, pack: Path) -> int | None:
        """Make the pack of an earlier call the newest checkpoint; returns its images seen."""
        stored = load_pack(pack, self.fingerprint)
        if stored is None or self.list_folders():
            return None
        images_seen, progress, tensors = stored
        CheckpointStore.save(self, images_seen, progress, tensors)
        return images_seen


def save_pack(
    folder: Path,
    images_seen: int,
    progress: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    fingerprint: str,
) -> None:
    """Write ``pack-<n>.safetensors``; the last one, replaced first, tells how many there are.

    Adam's first moments are left out, because a few steps build them up again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Tensor]] = [{}]
    size = 0
    for group, entries in tensors.items():
        for name, tensor in entries.items():
            if group.endswith("_optimizer") and name.endswith(".exp_avg"):
                continue
            reduced = _reduce(group, tensor)
            bytes_ = reduced.numel() * reduced.element_size()
            if size + bytes_ > LARGEST_FILE and files[-1]:
                files.append({})
                size = 0
            files[-1][f"{group}/{name}"] = reduced
            size += bytes_
    metadata = {
        PROGRESS: json.dumps(dict(progress)),
        "images_seen": str(images_seen),
        "fingerprint": fingerprint,
        "files": str(len(files)),
    }
    for number, group_tensors in enumerate(files):
        with atomic_path(folder / f"pack-{number}.safetensors") as temporary:
            temporary.write_bytes(safetensors.torch.save(group_tensors, metadata))


def _reduce(group: str, tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype != torch.float32 or tensor.numel() == 1:
        return tensor
    return tensor.to(torch.bfloat16 if group.endswith("_optimizer") else torch.float16)


def load_pack(folder: Path, fingerprint: str) -> tuple[int, dict[str, Any], StateTensors] | None:
    """Images seen, progress and float32 tensors; None where there is no whole pack of this run."""
    paths = sorted(folder.glob("pack-*.safetensors"))
    states: StateTensors = {}
    seen: set[tuple[str, ...]] = set()
    metadata: dict[str, str] = {}
    for path in paths:
        with safetensors.safe_open(path, framework="pt") as handle:
            metadata = handle.metadata()
            seen.add((metadata["images_seen"], metadata["files"], metadata["fingerprint"]))
            for key in handle.keys():  # noqa: SIM118 - no mapping
                group, name = key.split("/", 1)
                tensor = handle.get_tensor(key)
                reduced = tensor.dtype in (torch.float16, torch.bfloat16)
                states.setdefault(group, {})[name] = tensor.float() if reduced else tensor
    # A call that was ended while it wrote leaves files of two checkpoints.
    if len(seen) != 1 or seen.pop()[1:] != (str(len(paths)), fingerprint):
        return None
    for group, entries in states.items():
        if group.endswith("_optimizer"):
            for name in [name for name in entries if name.endswith(".exp_avg_sq")]:
                first = name.replace(".exp_avg_sq", ".exp_avg")
                entries[first] = torch.zeros_like(entries[name])
    return int(metadata["images_seen"]), json.loads(metadata[PROGRESS]), states


class _RowLogger(RunLogger):
    """Losses as rows of the table."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        """One row a log interval: pace and the two first losses."""
        pace = metrics.get("train/images_per_second", 0.0)
        note = ", ".join(f"{name[6:]} {value:.3f}" for name, value in list(metrics.items())[:3])
        row = Row(PART, f"at {images_seen:,} images", f"{pace:.0f} images/s", note)
        self.results.add(row)


def train_base(
    results: Results,
    config: TrainConfig,
    monitoring: MonitoringConfig,
    *,
    prepared: Path,
    pack: Path | None,
    device: torch.device,
    deadline: Deadline,
) -> None:
    """Train until the deadline, from random weights or from ``pack``; leave a pack in the results.

    Args:
        config: everything but the number of images.
        prepared: a folder of :func:`bench.gpu.prepared.prepare`.
        pack: what an earlier call left.
    """
    data = load_prepared(prepared)
    clip = load_carried_clip(
        prepared, config.precision if device.type == "cuda" else "fp32", device
    )
    family: TrainingSpec = find_family(config.family).load("training")
    networks = family.build_networks(config, clip)
    networks.move_to(device)
    nothing: Any = None
    conditions = Conditions(clip, nothing, nothing, nothing, None, None)
    store = PackingStore(
        results.folder / "work" / "checkpoints", results.folder / "pack", f"base {config.family}"
    )
    adopted = store.adopt(pack) if pack is not None else None
    results.add(
        Row(PART, "start", "random weights" if adopted is None else f"pack of {adopted:,} images")
    )
    loader = BatchLoader(
        data.data, config.batch_size, seed=config.seed, mirror=config.mirror, device=device
    )
    generator = networks.generator_ema
    step = family.build_step(config, networks, conditions, SINGLE)
    prepare_warm_up(step, config, loader, conditions, SINGLE)
    loop = TrainingLoop(
        step,
        loader.batch_at,
        schedule=Schedule(ENDLESS, config.batch_size, config.seed),
        monitoring=monitoring,
        checkpoints=store,
        save_samples=lambda seen: Samples(
            _save_grid(results.folder, generator, data, seen, device), {}
        ),
        run_logger=_RowLogger(results),
        device=device,
    )
    # The loop's own way to stop: it finishes the step, writes a checkpoint and leaves.
    alarm = threading.Timer(deadline.left(), os.kill, (os.getpid(), signal.SIGTERM))
    alarm.start()
    try:
        loop.run()
    except SystemExit:
        results.add(
            Row(PART, "end", f"{loop.images_seen:,} images", f"{loop.seconds:.0f} s in all")
        )
    finally:
        alarm.cancel()


@torch.no_grad()
def _save_grid(
    folder: Path, generator: Any, data: Prepared, images_seen: int, device: torch.device
) -> Path:
    """The prompts' images, a row each, as ``samples.png``."""
    del images_seen
    columns = 8
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(columns, generator.latent_dim, generator=rng).to(device)
    rows = []
    for features in data.prompt_features.to(device):
        images = generator(latents, features[None].expand(columns, -1))
        rows.append(torch.cat(list(to_uint8(images).cpu()), dim=2))
    pixels = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    path = folder / "samples.png"
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path
