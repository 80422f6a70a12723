"""The trained CLIP as a folder: weights, configuration, figures, model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clipgan.artifacts import write_bytes, write_json
from clipgan.clip.builtin import (
    BUILTIN_MODEL,
    IMAGE_TRUNK,
    IMAGE_TRUNK_PREFIX,
    MAX_TOKENS,
    SENTENCE_ENCODER,
    save_builtin_clip,
)
from clipgan.config import PretrainClipConfig
from clipgan.pretraining.tower import build_vision_cfg

METRICS_FILE = "metrics.json"
CARD_FILE = "MODEL_CARD.md"


def build_model_cfg(config: PretrainClipConfig) -> dict[str, Any]:
    """open_clip model configuration, without the sentence encoder's place."""
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": build_vision_cfg(config),
        "text_cfg": {
            "context_length": MAX_TOKENS,
            "hf_proj_type": config.text_projection,
            "hf_pooler_type": "mean_pooler",
        },
    }


def save_trained_clip(
    folder: Path,
    *,
    visual: nn.Module,
    text_head: nn.Module,
    logit_scale: Tensor,
    config: PretrainClipConfig,
    sentence_encoder_sha256: str,
    image_trunk_sha256: str,
    metrics: dict[str, Any],
) -> None:
    """Write ``model.safetensors``, ``config.json``, ``metrics.json`` and ``MODEL_CARD.md``."""
    state = {f"visual.{key}": value for key, value in visual.state_dict().items()}
    state = {k: v for k, v in state.items() if not k.startswith(IMAGE_TRUNK_PREFIX)}
    state |= {f"text.proj.{key}": value for key, value in text_head.state_dict().items()}
    state["logit_scale"] = logit_scale
    save_builtin_clip(
        folder,
        state,
        build_model_cfg(config),
        sentence_encoder_sha256=sentence_encoder_sha256,
        image_trunk_sha256=image_trunk_sha256,
    )
    write_json(folder / METRICS_FILE, metrics)
    write_bytes(folder / CARD_FILE, render_model_card(metrics).encode())


def render_model_card(metrics: dict[str, Any]) -> str:
    """Markdown for people, from the tree in ``metrics.json``."""
    data, recipe = metrics["data"], metrics["recipe"]
    return f"""# {BUILTIN_MODEL}

A small CLIP for icons. Image side: a hybrid ViT ({recipe["vision_layers"]} layers, width
{recipe["vision_width"]}, {recipe["image_side_px"]} px) whose patch embedding is a frozen
EfficientNet-lite2 (ImageNet; pip package `{IMAGE_TRUNK}`), one patch for each place of its map.
Text side: the frozen sentence encoder all-MiniLM-L6-v2 (pip package `{SENTENCE_ENCODER}`) under a
trained projection. {recipe["embed_dim"]} dimensions; open_clip's architecture and key names; loaded
through open_clip. The file holds what was trained here; the two frozen networks come from their
packages.

## How it was made

Two heads on the two frozen networks were trained contrastively; then the transformer was trained on
the trunk's maps of {recipe["views"]} views of every image, to agree with the first head and with
the captions ({recipe["steps"]:,} steps of {recipe["batch_size"]}). EfficientNet-lite0, the judge of
the generators, took no part. Recipe: `clipgan pretrain-clip`, section `pretrain_clip` of
params.yaml.

## Data

{data["num_train_images"]:,} training images of {data["num_train_concepts"]:,} concepts, styles
{", ".join(data["styles"])}; {data["num_validation_concepts"]:,} concepts held out with all their
variants. OpenMoji is CC BY-SA 4.0; Noto Emoji is Apache-2.0 (images) and Fluent Emoji is MIT.

## Figures

{render_metrics_table(metrics)}

Protocol: one image a concept (the plainest of style {data["styles"][0]}), its name as the query, as
many images as there are concepts in the group. "Name beats random": an image is closer to its own
name than to a random other one. Teacher: the head on the trunk's averaged features.

The recipe's values were chosen by looking at these unseen concepts (eight settings of the heads,
two of the whole recipe), so the unseen figures are no blind test.

## Limits

It knows drawings on plain ground and the words of emoji names. It is no judge of photographs, and
no independent judge of generators trained against it.
"""


def render_metrics_table(metrics: dict[str, Any]) -> str:
    """Markdown table of the retrieval figures of tower and teacher."""
    lines = [
        "| network | concepts | candidates | R@1 | R@5 | R@10 | name beats random | mean cosine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in ("tower", "teacher"):
        for group, figures in metrics[network].items():
            recalls = " | ".join(f"{value:.3f}" for value in figures["recall_at"].values())
            lines.append(
                f"| {network} | {group} | {figures['num_candidates']} | {recalls} "
                f"| {figures['name_beats_random']:.3f} | {figures['mean_cosine']:.3f} |"
            )
    return "\n".join(lines)
