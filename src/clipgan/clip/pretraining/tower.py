"""Training of the vision tower on the trunk's cached feature maps.

Loss on a batch of views: cosine distance to the teacher head's embedding of the same view, and
contrast with the text embeddings of the frozen text head (:mod:`clipgan.clip.pretraining.heads`).
Everything random is a function of the seed and the step, so a run that was cut off goes on as if
it had not been.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from clipgan.artifacts import atomic_path
from clipgan.clip.hybrid import TRUNK_STRIDE_PX, MapProjection
from clipgan.clip.pretraining.heads import (
    CaptionSampler,
    Heads,
    compute_concept_contrast,
    compute_rate_factor,
)
from clipgan.clip.pretraining.prepared import PretrainingData
from clipgan.config import PretrainClipConfig
from clipgan.errors import CheckpointError, TrainingDivergedError
from clipgan.progress import progress_bar


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
    # open_clip builds towers only as part of a model: the smallest text tower goes with it.
    text_cfg = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        visual = open_clip.CLIP(config.embed_dim, build_vision_cfg(config), text_cfg).visual
        visual.conv1 = MapProjection(config.vision_width)
    return visual


class TowerTraining:
    """The tower, its optimizer and its place in the schedule."""

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
        self.step_number = 0

    def run(self, checkpoint: Path) -> None:
        """Train up to ``config.steps``, from the checkpoint if there is one.

        Raises:
            TrainingDivergedError: the loss became NaN or Inf.
            CheckpointError: the checkpoint is damaged.
        """
        if checkpoint.is_file():
            self.load(checkpoint)
        steps, interval = self.config.steps, self.config.checkpoint_interval_steps
        self.tower.train()
        with progress_bar("tower", steps, "steps", done=self.step_number) as bar:
            while self.step_number < steps:
                losses = self.step()
                bar.note("  ".join(f"{name} {value:.3f}" for name, value in losses.items()))
                bar.advance()
                if self.step_number == steps or self.step_number % interval == 0:
                    self.save(checkpoint)

    def step(self) -> dict[str, float]:
        """One update; returns its losses."""
        config = self.config
        factor = compute_rate_factor(self.step_number, config.steps, config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        rows, captions, maps = self._draw()
        with torch.random.fork_rng():
            torch.manual_seed(_derive_seed(config.seed, self.step_number, "dropout"))
            embeddings = self.tower(F.dropout(maps, config.map_dropout))
        wanted = self.heads.image(maps.mean(dim=(2, 3)))
        distillation = 1.0 - F.cosine_similarity(embeddings, wanted, dim=-1).mean()
        contrastive = compute_concept_contrast(
            embeddings, self.texts[captions], self.concepts[rows], self.heads.logit_scale
        )
        loss = config.distillation_weight * distillation + config.contrastive_weight * contrastive
        if not math.isfinite(float(loss.detach())):
            raise TrainingDivergedError(
                f"pretrain_clip: loss = {float(loss.detach())} at step {self.step_number}; lower "
                f"pretrain_clip.learning_rate = {config.learning_rate}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.tower.parameters(), 1.0)
        self.optimizer.step()
        self.step_number += 1
        return {"distillation": distillation.item(), "contrastive": contrastive.item()}

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator()
        generator.manual_seed(_derive_seed(self.config.seed, self.step_number, "rows"))
        picks = torch.randint(len(self.train_rows), (self.config.batch_size,), generator=generator)
        rows = self.train_rows[picks]
        views = torch.randint(len(self.maps), (len(rows),), generator=generator)
        captions = self.captions.draw(rows, generator)
        maps = self.maps[views, rows].to(self.device).float()
        return rows.to(self.device), captions.to(self.device), maps

    def save(self, path: Path) -> None:
        """Write weights and optimizer state atomically."""
        tensors = {f"tower.{k}": v for k, v in self.tower.state_dict().items()}
        names = {id(p): name for name, p in self.tower.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            for field, value in state.items():
                tensors[f"optimizer.{names[id(parameter)]}.{field}"] = value
        tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        with atomic_path(path) as temporary:
            save_file(
                tensors, temporary, metadata={"state": json.dumps({"step": self.step_number})}
            )

    def load(self, path: Path) -> None:
        """Read a checkpoint of the same configuration.

        Raises:
            CheckpointError: it is damaged or of another network.
        """
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                step = json.loads(file.metadata()["state"])["step"]
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            prefix = "tower."
            self.tower.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
            for name, parameter in self.tower.named_parameters():
                if f"optimizer.{name}.step" not in tensors:
                    continue  # a parameter that takes no gradient has no state
                self.optimizer.state[parameter] = {
                    field: tensors[f"optimizer.{name}.{field}"]
                    for field in ("step", "exp_avg", "exp_avg_sq")
                }
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path}: damaged ({reason}); delete it and run again") from error
        self.step_number = step


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
