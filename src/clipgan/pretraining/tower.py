"""Training of the vision tower on the trunk's cached feature maps.

Loss on a batch of views: cosine distance to the teacher head's embedding of the same view, and
contrast with the text embeddings of the frozen text head (:mod:`clipgan.pretraining.heads`).
All randomness is a function of the seed and the step, so that an interrupted run ends with the same
result as one that was not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.clip.hybrid import TRUNK_STRIDE_PX, MapProjection
from clipgan.config import PretrainClipConfig
from clipgan.pretraining.heads import (
    CaptionSampler,
    Heads,
    compute_concept_contrast,
    compute_rate_factor,
)
from clipgan.pretraining.prepared import PretrainingData
from clipgan.training.state import StateTensors, capture_optimizer, restore_optimizer


def build_vision_cfg(config: PretrainClipConfig) -> dict[str, Any]:
    """open_clip ``vision_cfg``: a plain ViT whose patch is one place of the trunk's map."""
    return {
        "image_size": config.image_side_px,
        "patch_size": TRUNK_STRIDE_PX,
        "width": config.vision_width,
        "layers": config.vision_layers,
        "head_width": config.vision_head_width,
        "pool_type": "avg",
    }


def build_vision_tower(config: PretrainClipConfig) -> Any:
    """open_clip's vision tower over cached maps: ``conv1`` is the projection without the trunk."""
    # open_clip builds towers only as part of a whole model, here with the smallest text tower.
    text_cfg = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        visual = open_clip.CLIP(config.embed_dim, build_vision_cfg(config), text_cfg).visual
        visual.conv1 = MapProjection(config.vision_width)
    return visual


class TowerTraining:
    """The tower and its optimizer."""

    advice = "lower pretrain_clip.learning_rate"

    def __init__(
        self,
        config: PretrainClipConfig,
        data: PretrainingData,
        maps: Tensor,
        heads: Heads,
        device: torch.device,
    ) -> None:
        """``maps`` (V, N, 1280, G, G) float16 of all images, on the CPU."""
        self.config, self.maps, self.heads, self.device = config, maps, heads, device
        self.train_rows = data.is_train.nonzero().squeeze(1)
        self.concepts = data.concept_ids.to(device)
        self.captions = CaptionSampler(data)
        with torch.no_grad():
            texts = heads.text(data.text_embeddings.to(device))
        self.texts = F.normalize(texts, dim=1)
        self.tower = build_vision_tower(config).to(device)
        rows = self.maps[0, self.train_rows].float().permute(0, 2, 3, 1).flatten(0, 2)
        self.tower.conv1.fit(rows.to(device))
        self.optimizer = torch.optim.AdamW(
            _group_parameters(self.tower, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-6,
        )
        self.tower.train()

    def step(self, number: int) -> dict[str, Tensor]:
        """See :class:`~clipgan.training.resumable.SmallTraining`."""
        config = self.config
        factor = compute_rate_factor(number, config.steps, config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        rows, captions, maps = self._draw(number)
        with torch.random.fork_rng():
            torch.manual_seed(_derive_seed(config.seed, number, "dropout"))
            embeddings = self.tower(F.dropout(maps, config.map_dropout))
        wanted = self.heads.image(maps.mean(dim=(2, 3)))
        distillation = 1.0 - F.cosine_similarity(embeddings, wanted, dim=-1).mean()
        contrastive = compute_concept_contrast(
            embeddings, self.texts[captions], self.concepts[rows], self.heads.logit_scale
        )
        loss = config.distillation_weight * distillation + config.contrastive_weight * contrastive
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.tower.parameters(), 1.0)
        self.optimizer.step()
        return {"distillation": distillation.detach(), "contrastive": contrastive.detach()}

    def _draw(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = torch.Generator()
        rng.manual_seed(_derive_seed(self.config.seed, number, "rows"))
        picks = torch.randint(len(self.train_rows), (self.config.batch_size,), generator=rng)
        rows = self.train_rows[picks]
        views = torch.randint(len(self.maps), (len(rows),), generator=rng)
        captions = self.captions.draw(rows, rng)
        maps = self.maps[views, rows].to(self.device).float()
        return rows.to(self.device), captions.to(self.device), maps

    def capture_state(self) -> StateTensors:
        """See :class:`~clipgan.training.resumable.Resumable`."""
        optimizer = capture_optimizer(self.optimizer)
        return {"tower": dict(self.tower.state_dict()), "optimizer": optimizer}

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        self.tower.load_state_dict(tensors["tower"])
        restore_optimizer(self.optimizer, tensors["optimizer"])


def _group_parameters(tower: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, as in CLIP (Radford et al. 2021, section 2.5)."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in tower.named_parameters():
        is_matrix = parameter.ndim > 1 and "positional_embedding" not in name
        (decayed if is_matrix else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _derive_seed(seed: int, step: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
