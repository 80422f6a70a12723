"""Recipe of the built-in small CLIP: image shards -> weights, configuration, figures, model card.

It has four parts, each resumable from the work folder: images and sentence embeddings in one small
folder, the image trunk's feature maps, training (the two heads, then the tower), evaluation and
export.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipgan import schemas
from clipgan.artifacts import atomic_path, hash_file, hash_json
from clipgan.clip.builtin import WEIGHTS_FILE, find_sentence_encoder
from clipgan.clip.hybrid import TRUNK_VARIANT, HybridStem
from clipgan.config import PretrainClipConfig
from clipgan.config.effective import select_small_recipe
from clipgan.data.decoding import decode_image
from clipgan.data.shards import iterate_tables, load_manifest
from clipgan.devices import resolve_device
from clipgan.errors import DataError
from clipgan.images import to_clip_input, to_unit_range
from clipgan.pretrained.efficientnet_lite import load_efficientnet_lite
from clipgan.pretraining.export import build_model_cfg, save_trained_clip
from clipgan.pretraining.heads import Heads, build_heads, freeze_heads, train_heads
from clipgan.pretraining.maps import load_or_make_maps
from clipgan.pretraining.prepared import (
    PretrainingData,
    Sample,
    load_prepared,
    read_prepared_fingerprint,
    save_prepared,
)
from clipgan.pretraining.retrieval import compute_group_metrics
from clipgan.pretraining.sentences import embed_captions
from clipgan.pretraining.tower import TowerTraining
from clipgan.progress import progress_bar
from clipgan.source_code import hash_sources
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.resumable import StepLoop

PREPARED_FOLDER = "prepared"
KEPT_CHECKPOINTS = 2
_COLUMNS = [
    schemas.SAMPLE_ID,
    schemas.CONCEPT,
    schemas.STYLE,
    schemas.SPLIT,
    schemas.CAPTIONS,
    schemas.IMAGE,
]
_INFERENCE_BATCH = 64


def pretrain_clip(config: PretrainClipConfig, *, images: Path, output: Path, work: Path) -> None:
    """Train the built-in CLIP and write it to ``output``; the same call continues a killed run.

    Raises:
        DataError: the image shards are missing or damaged, or no image has a caption.
        ClipError: a package with weights is missing.
        TrainingDivergedError: the loss became NaN or Inf.
    """
    data = load_prepared(prepare_pretraining(config, images=images, work=work))
    device = resolve_device(config.device)
    # Everything that decides the checkpoints, but not how often they are written.
    recipe = select_small_recipe(config)
    fingerprint = hash_json([data.fingerprint, recipe])
    state = work / fingerprint[:16]
    trunk = load_efficientnet_lite(TRUNK_VARIANT)
    maps = load_or_make_maps(config, data, trunk, device, work)
    heads = _load_or_train_heads(config, data, maps.float().mean(dim=(3, 4)), device, state)
    training = TowerTraining(config, data, maps, heads, device)
    StepLoop(
        "tower",
        training,
        total_steps=config.steps,
        checkpoint_interval_steps=config.checkpoint_interval_steps,
        checkpoints=CheckpointStore(
            state / "checkpoints", keep=KEPT_CHECKPOINTS, fingerprint=fingerprint
        ),
        device=device,
    ).run()
    visual = training.tower.eval()
    visual.conv1 = HybridStem(trunk.to(device, torch.float32), visual.conv1)
    metrics = _evaluate(config, data, visual, heads, device)
    save_trained_clip(
        output,
        visual=visual,
        text_head=heads.text,
        logit_scale=heads.logit_scale,
        config=config,
        sentence_encoder_sha256=data.sentence_encoder_sha256,
        image_trunk_sha256=trunk.weights_sha256,
        metrics=metrics,
    )


def prepare_pretraining(config: PretrainClipConfig, *, images: Path, work: Path) -> Path:
    """Write the folder ``work/prepared``, unless it is there with the same fingerprint.

    The fingerprint covers images, sentence encoder and this recipe's code. It is part of the name
    of all further state, so state of other images or other code is not used.
    """
    folder = work / PREPARED_FOLDER
    encoder = find_sentence_encoder()
    encoder_sha256 = hash_file(encoder / WEIGHTS_FILE)
    code = hash_sources("clipgan.stages.pretrain_clip")
    fingerprint = hash_json([load_manifest(images).fingerprint, encoder_sha256, code])
    if read_prepared_fingerprint(folder) != fingerprint:
        save_prepared(
            folder,
            _read_samples(images),
            embed=lambda captions: embed_captions(captions, build_model_cfg(config), encoder),
            sentence_encoder_sha256=encoder_sha256,
            fingerprint=fingerprint,
        )
    return folder


def _read_samples(images: Path) -> Iterator[Sample]:
    count = load_manifest(images).num_images
    has_captions = False
    with progress_bar("prepare", count, "images") as bar:
        for table in iterate_tables(images, _COLUMNS):
            for row in table.to_pylist():
                bar.advance()
                if not row[schemas.CAPTIONS]:
                    continue
                has_captions = True
                yield Sample(
                    sample_id=row[schemas.SAMPLE_ID],
                    concept=row[schemas.CONCEPT],
                    style=row[schemas.STYLE],
                    split=row[schemas.SPLIT],
                    captions=row[schemas.CAPTIONS],
                    pixels=decode_image(row[schemas.IMAGE]),
                )
    if not has_captions:
        raise DataError(f"{images}: no image has a caption; a CLIP cannot be trained without")


def _load_or_train_heads(
    config: PretrainClipConfig,
    data: PretrainingData,
    features: Tensor,
    device: torch.device,
    state: Path,
) -> Heads:
    """Load the heads, or train them on the trunk's features (V, N, 1280), averaged over places."""
    path = state / "heads.safetensors"
    if not path.is_file():
        heads = train_heads(data, features, config, device)
        modules = nn.ModuleDict({"image": heads.image, "text": heads.text})
        tensors = {**modules.state_dict(), "logit_scale": heads.logit_scale}
        with atomic_path(path) as temporary:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
    tensors = load_file(path, device=str(device))
    heads = build_heads(features.shape[-1], data.text_embeddings.shape[1], config)
    heads.logit_scale = tensors.pop("logit_scale")
    modules = nn.ModuleDict({"image": heads.image, "text": heads.text})
    modules.to(device).load_state_dict(tensors)
    return freeze_heads(heads)


@torch.no_grad()
def _evaluate(
    config: PretrainClipConfig,
    data: PretrainingData,
    visual: Any,
    heads: Heads,
    device: torch.device,
) -> dict[str, Any]:
    """Compute the figures of the whole tower, from pixels, and of the teacher head."""

    def encode_by_tower(rows: Tensor) -> Tensor:
        pixels = to_clip_input(_read_pixels(data, rows, device), config.image_side_px)
        return torch.cat([visual(part) for part in torch.split(pixels, _INFERENCE_BATCH)])

    def encode_by_teacher(rows: Tensor) -> Tensor:
        stem: HybridStem = visual.conv1
        pixels = to_clip_input(_read_pixels(data, rows, device), config.image_side_px)
        parts = torch.split(pixels, _INFERENCE_BATCH)
        return torch.cat([heads.image(stem.encode_maps(part).mean(dim=(2, 3))) for part in parts])

    texts = heads.text(data.text_embeddings.to(device)).cpu()
    train_concepts = set(data.concept_ids[data.is_train].tolist())
    return {
        "tower": compute_group_metrics(data, encode_by_tower, texts, config.seed),
        "teacher": compute_group_metrics(data, encode_by_teacher, texts, config.seed),
        "data": {
            "fingerprint": data.fingerprint,
            "num_train_images": int(data.is_train.sum()),
            "num_images": len(data.is_train),
            "num_train_concepts": len(train_concepts),
            "num_validation_concepts": len(data.concepts) - len(train_concepts),
            "num_captions": len(data.captions),
            "styles": list(dict.fromkeys(data.styles)),
        },
        "recipe": config.model_dump(mode="json"),
        "model_cfg": build_model_cfg(config),
    }


def _read_pixels(data: PretrainingData, rows: Tensor, device: torch.device) -> Tensor:
    return to_unit_range(data.images_uint8[rows].to(device))
