"""``python -m bench.gallery``: the pictures of README and docs, drawn by the shipped generators.

    python -m bench.gallery --names data/images    # names of the built-in drawings, to draw some of

Nothing is chosen by looking: words are drawn at random with a stated seed, latents are those of
seeds from 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgan.data.shards import iterate_tables
from clipgan.families.registry import FAMILIES
from clipgan.generation.sampler import Sampler, load_sampler
from clipgan.generation.styles import StyleMix
from clipgan.grids import save_grid
from clipgan.models.built_in import get_base_folder

PICTURES = Path("docs/images")
SEED = 0
"""Of the choice of words, and of the first latent."""
COLUMNS = 8
TRUNCATIONS = (1.0, 0.7, 0.4, 0.0)


def main() -> None:
    """Draw all of them into docs/images."""
    parser = argparse.ArgumentParser(prog="python -m bench.gallery", description=__doc__)
    parser.add_argument("--names", type=Path, required=True, help="image shards with concepts")
    words = draw_words(parser.parse_args().names, COLUMNS)
    for family in FAMILIES:
        sampler = load_sampler(get_base_folder(family), device=torch.device("cpu"))
        name = "samples" if family == next(iter(FAMILIES)) else f"{family}-samples"
        images = sampler.sample(words, seed=SEED, num_images=COLUMNS)
        save(name, images, words)
        if sampler.num_layers:
            show_styles(sampler, words[0])


def draw_words(shards: Path, count: int) -> list[str]:
    """``count`` random concepts of the drawings, all of them equally likely."""
    concepts = set[str]()
    for table in iterate_tables(shards, ["concept"]):
        concepts.update(table["concept"].to_pylist())
    drawn = np.random.default_rng(SEED).choice(sorted(concepts), count, replace=False)
    return [str(name) for name in drawn]


def show_styles(sampler: Sampler, word: str) -> None:
    """What truncation, mixing and a walk between two latents do to eight pictures of one word."""

    def draw(truncation: float = 1.0, mixes: tuple[StyleMix, ...] = ()) -> Tensor:
        return sampler.sample(
            [word], seed=SEED, num_images=COLUMNS, truncation=truncation, mixes=mixes
        )

    truncated = torch.cat([draw(truncation) for truncation in TRUNCATIONS])
    save("truncation", truncated, [f"truncation {number:g}" for number in TRUNCATIONS])
    half = sampler.num_layers // 2
    own, other = draw(), sampler.sample([word], seed=SEED + 1, num_images=COLUMNS)
    coarse = draw(mixes=(StyleMix(SEED + 1, 0, half - 1),))
    fine = draw(mixes=(StyleMix(SEED + 1, half, sampler.num_layers - 1),))
    labels = [
        f"seed {SEED}",
        f"layers 0-{half - 1} of seed {SEED + 1}",
        f"layers {half}-{sampler.num_layers - 1} of seed {SEED + 1}",
        f"seed {SEED + 1}",
    ]
    save("style-mixing", torch.cat([own, coarse, fine, other]), labels)


def save(name: str, images: Tensor, labels: list[str]) -> None:
    """A grid with twice the pixels, a label a row."""
    save_grid(PICTURES / f"{name}.png", images, COLUMNS, row_labels=labels, scale=2)
    print(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
