"""Post-hoc EMA: generators of other averaging lengths from the snapshots of a finished training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clipgan.errors import CheckpointError
from clipgan.models.bundle import load_bundle, save_bundle
from clipgan.models.stored_weights import check_shapes
from clipgan.training.power_averages import BUFFERS, SNAPSHOTS_FOLDER
from clipgan.training.power_functions import compute_gamma, fit_density


@dataclass(frozen=True)
class AveragedGenerator:
    """A generator of the relative averaging length ``sigma``, as a bundle in ``folder``.

    ``error`` is the distance of its average from the power function of that length, over the norm
    of the latter, computed in closed form: 0 is exact.
    """

    sigma: float
    folder: Path
    error: float
    num_snapshots: int


def write_averaging_lengths(
    training: Path, sigmas: Sequence[float], output: Path
) -> list[AveragedGenerator]:
    """Write the bundle ``output/sigma-<sigma>`` for each length, with the training's discriminator.

    The average ends where the training ended. Buffers are those of the last snapshot, as in the
    average that becomes the training's generator.

    Args:
        training: a bundle with snapshots beside it, such as data/training.
        sigmas: different numbers, see :func:`~clipgan.training.power_functions.compute_gamma`.

    Raises:
        ConfigError: a length is out of range.
        CheckpointError: there are no snapshots, or bundle or snapshots are damaged.
    """
    gammas = [compute_gamma(sigma) for sigma in sigmas]
    bundle = load_bundle(training)
    paths = sorted((training / SNAPSHOTS_FOLDER).glob("images-*.safetensors"))
    if not paths:
        raise CheckpointError(
            f"{training}: no snapshots of its averages ({SNAPSHOTS_FOLDER}/), so its averaging "
            "length is fixed; set train.ema.snapshot_interval_images and train again"
        )
    kept = sorted({key.partition("/")[0] for key in _load(paths[0])} - {BUFFERS})
    ends = np.array([float(path.stem.removeprefix("images-")) for path in paths for _ in kept])
    stored = np.array([compute_gamma(float(sigma)) for _ in paths for sigma in kept])
    fits = [fit_density(stored, ends, gamma, ends[-1]) for gamma in gammas]
    factors = np.stack([fit[0] for fit in fits]).reshape(len(sigmas), len(paths), len(kept))
    averages, buffers = _add_up(paths, kept, factors)
    written = []
    for sigma, (_, error), average in zip(sigmas, fits, averages, strict=True):
        weights = average | buffers
        check_shapes(paths[-1], bundle.generator.state_dict(), weights)
        bundle.generator.load_state_dict(weights)
        ema = {"sigma": sigma, "error": error, "num_snapshots": len(paths)}
        info = replace(bundle.info, provenance={**bundle.info.provenance, "ema": ema})
        folder = output / f"sigma-{sigma:g}"
        save_bundle(
            folder, bundle.generator, bundle.discriminator, info, dtype="fp32", means=bundle.means
        )
        written.append(AveragedGenerator(sigma, folder, error, len(paths)))
    return written


def _add_up(
    paths: Sequence[Path], kept: Sequence[str], factors: NDArray[np.float64]
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Sums of the snapshots by ``factors`` (lengths, snapshots, averages), and the last buffers."""
    sums: list[dict[str, Tensor]] = [{} for _ in factors]
    buffers: dict[str, Tensor] = {}
    for index, path in enumerate(paths):
        for key, tensor in _load(path).items():
            sigma, _, name = key.partition("/")
            if sigma == BUFFERS:
                buffers[name] = tensor
                continue
            weights = tensor.float()
            for total, factor in zip(sums, factors[:, index, kept.index(sigma)], strict=True):
                total[name] = torch.add(
                    total.get(name, torch.zeros(())), weights, alpha=float(factor)
                )
    return sums, buffers


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); restore the folder (`dvc checkout`), or train again"
        ) from error
