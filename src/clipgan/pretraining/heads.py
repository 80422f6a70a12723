"""The two heads that join a frozen image network and a frozen sentence encoder.

They are trained contrastively (Radford et al. 2021) on cached features, in seconds. The text head
is the projection of the shipped CLIP; the image head is the tower's teacher. Captions of one
concept are never each other's negatives: the target spreads evenly over its pairs in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.config import PretrainClipConfig
from clipgan.pretraining.prepared import PretrainingData

MAX_LOGIT_SCALE = math.log(100.0)
"""Upper bound of the learned inverse temperature's logarithm (Radford et al. 2021, section 2.5)."""


class ImageHead(nn.Module):
    """Standardised teacher features (N, F) -> embeddings (N, D), not normalised."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_features: int, config: PretrainClipConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(num_features))
        self.layers = nn.Sequential(
            nn.Dropout(config.teacher_dropout),
            nn.Linear(num_features, config.teacher_hidden_dim),
            nn.GELU(),
            nn.Dropout(config.teacher_dropout),
            nn.Linear(config.teacher_hidden_dim, config.embed_dim),
        )

    def standardize(self, features: Tensor) -> Tensor:
        """Features (..., F) -> zero mean, unit deviation over the training images."""
        return (features - self.mean) / self.deviation

    def forward(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.layers(self.standardize(features))
        return embeddings


def build_text_head(text_dim: int, config: PretrainClipConfig) -> nn.Module:
    """Sentence embeddings (N, E) -> (N, D); layers and names as open_clip's HFTextEncoder.proj."""
    if config.text_projection == "linear":
        return nn.Linear(text_dim, config.embed_dim, bias=False)
    hidden = (text_dim + config.embed_dim) // 2
    return nn.Sequential(
        nn.Linear(text_dim, hidden, bias=False),
        nn.GELU(),
        nn.Linear(hidden, config.embed_dim, bias=False),
    )


@dataclass
class Heads:
    """Result of :func:`train_heads`."""

    image: ImageHead
    text: nn.Module
    logit_scale: Tensor


def build_heads(num_features: int, text_dim: int, config: PretrainClipConfig) -> Heads:
    """Untrained heads; the random weights follow ``config.seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return Heads(
            ImageHead(num_features, config),
            build_text_head(text_dim, config),
            nn.Parameter(torch.tensor(-math.log(config.temperature))),
        )


def train_heads(
    data: PretrainingData, features: Tensor, config: PretrainClipConfig, device: torch.device
) -> Heads:
    """Train both heads on cached teacher features.

    Args:
        features: (V, N, F) float16, V views of every image.
        device: where the few matrix products run.

    Returns:
        Frozen heads in evaluation mode, on ``device``.
    """
    train = data.is_train.nonzero().squeeze(1)
    features, embeddings = features.to(device), data.text_embeddings.to(device)
    concepts = data.concept_ids.to(device)
    heads = build_heads(features.shape[-1], embeddings.shape[1], config)
    heads.image.to(device), heads.text.to(device)
    heads.logit_scale = nn.Parameter(heads.logit_scale.detach().to(device))
    flat = features[:, train.to(device)].float().flatten(0, 1)
    heads.image.mean.copy_(flat.mean(dim=0))
    # Nearly constant features carry no information: the lower bound keeps them small.
    heads.image.deviation.copy_(flat.std(dim=0).clamp(min=1e-2))
    del flat
    parameters = [*heads.image.parameters(), *heads.text.parameters(), heads.logit_scale]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.teacher_learning_rate, weight_decay=config.teacher_weight_decay
    )
    rng = torch.Generator().manual_seed(config.seed)
    captions = CaptionSampler(data)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(config.seed + 1)  # dropout
        for step in range(config.teacher_steps):
            factor = compute_rate_factor(step, config.teacher_steps, config.teacher_steps // 10)
            for group in optimizer.param_groups:
                group["lr"] = config.teacher_learning_rate * factor
            rows = train[torch.randint(len(train), (config.teacher_batch_size,), generator=rng)]
            views = torch.randint(len(features), (len(rows),), generator=rng)
            chosen = captions.draw(rows, rng).to(device)
            images = heads.image(features[views.to(device), rows.to(device)].float())
            loss = compute_concept_contrast(
                images, heads.text(embeddings[chosen]), concepts[rows.to(device)], heads.logit_scale
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return freeze_heads(heads)


def freeze_heads(heads: Heads) -> Heads:
    """Evaluation mode, no gradients, logit scale within :data:`MAX_LOGIT_SCALE`."""
    heads.image.eval().requires_grad_(False)
    heads.text.eval().requires_grad_(False)
    heads.logit_scale = heads.logit_scale.detach().clamp(max=MAX_LOGIT_SCALE)
    return heads


class CaptionSampler:
    """Draws one caption number for every image."""

    def __init__(self, data: PretrainingData) -> None:
        self.counts = torch.tensor([len(numbers) for numbers in data.caption_numbers])
        self.first = torch.cat([torch.zeros(1, dtype=torch.long), self.counts.cumsum(0)[:-1]])
        self.numbers = torch.tensor([n for numbers in data.caption_numbers for n in numbers])

    def draw(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Images (B,) -> rows of the text embeddings (B,), uniform over each image's captions."""
        place = torch.rand(len(rows), generator=rng) * self.counts[rows]
        return self.numbers[self.first[rows] + place.long()]


def compute_concept_contrast(
    image_embeddings: Tensor, text_embeddings: Tensor, concepts: Tensor, logit_scale: Tensor
) -> Tensor:
    """Symmetric cross-entropy whose target is uniform over the batch's pairs of the same concept.

    Embeddings (B, D) of any norm, ``concepts`` (B,) integers, ``logit_scale`` the logarithm of the
    inverse temperature; returns a scalar.
    """
    images, texts = F.normalize(image_embeddings, dim=1), F.normalize(text_embeddings, dim=1)
    logits = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * images @ texts.T
    same = (concepts[:, None] == concepts[None, :]).float()
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2.0


def compute_rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Learning rate of a step over its peak: linear warm-up, then a half cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps))
