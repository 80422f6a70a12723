"""How well names find images: the figures in the built-in CLIP's ``metrics.json``.

Protocol: one image a concept (its plainest drawing of the first style, i.e. the one whose name is
shortest), one query a concept (that image's first caption, its name). ``unseen`` are the concepts
held out from training, ``seen`` an equally long, seeded sample of the training concepts; each query
ranks the images of its own group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.pretraining.prepared import PretrainingData

RANKS = (1, 5, 10)


def select_rows(data: PretrainingData, seed: int) -> dict[str, Tensor]:
    """Image rows of the groups ``unseen`` and ``seen``; see the module."""
    plainest: dict[int, int] = {}
    style = data.styles[0]
    for row, concept in enumerate(data.concept_ids.tolist()):
        if data.styles[row] != style:
            continue
        best = plainest.get(concept)
        if best is None or _name_length(data, row) < _name_length(data, best):
            plainest[concept] = row
    rows = torch.tensor(sorted(plainest.values()), dtype=torch.long)
    unseen, seen = rows[~data.is_train[rows]], rows[data.is_train[rows]]
    rng = torch.Generator().manual_seed(seed)
    count = min(len(seen), len(unseen)) or len(seen)
    sample = seen[torch.randperm(len(seen), generator=rng)[:count]].sort().values
    return {"unseen": unseen, "seen": sample}


def select_names(data: PretrainingData, rows: Tensor) -> Tensor:
    """Rows of the text embeddings: each image's first caption."""
    return torch.tensor([data.caption_numbers[row][0] for row in rows.tolist()])


def compute_retrieval(image_embeddings: Tensor, text_embeddings: Tensor) -> dict[str, Any]:
    """Figures of N matching pairs: embeddings (N, D) of any norm, pair i in row i of both.

    Returns:
        ``num_candidates``: N; ``recall_at``: k -> share of names whose image is among the k most
        similar; ``name_beats_random``: probability that an image is closer to its own name than to
        a random other one; ``mean_cosine`` of matching and ``mean_cosine_mismatched`` of other
        pairs.
    """
    images = F.normalize(image_embeddings.float().cpu(), dim=1)
    texts = F.normalize(text_embeddings.float().cpu(), dim=1)
    similarities = texts @ images.T  # names x images
    own = similarities.diagonal()
    count = len(own)
    better = (similarities > own[:, None]).sum(dim=1)
    others = max(count - 1, 1)
    beaten = (own[:, None] > similarities.T).sum(dim=1) / others
    return {
        "num_candidates": count,
        "recall_at": {str(k): float((better < k).float().mean()) for k in RANKS},
        "name_beats_random": float(beaten.mean()),
        "mean_cosine": float(own.mean()),
        "mean_cosine_mismatched": float((similarities.sum() - own.sum()) / (count * others)),
    }


def compute_group_metrics(
    data: PretrainingData,
    encode_rows: Callable[[Tensor], Tensor],
    text_embeddings: Tensor,
    seed: int,
) -> dict[str, Any]:
    """JSON tree ``{"unseen": {...}, "seen": {...}}``.

    Args:
        encode_rows: image rows (R,) -> embeddings (R, D).
        text_embeddings: (M, D), one a caption of ``data``.
    """
    tree = {}
    for group, rows in select_rows(data, seed).items():
        if len(rows):
            texts = text_embeddings.cpu()[select_names(data, rows)]
            tree[group] = compute_retrieval(encode_rows(rows), texts)
    return tree


def _name_length(data: PretrainingData, row: int) -> int:
    return len(data.captions[data.caption_numbers[row][0]])
