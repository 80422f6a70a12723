"""The train stage with every variant at once: the bundle says its forms and samples the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clipgan.models.bundle import load_bundle
from tests.stages.tiny_training import build_world, run_training, tiny_params

VARIANTS: dict[str, Any] = {
    "train.total_images": 16,
    "train.lafite.generator.style_input": "affine",
    "train.lafite.generator.text_concat_max_px": 4,
    "train.lafite.discriminator.semantic_logit": "batch_sum",
    "train.lafite.discriminator.normalize_semantic": True,
    "train.lafite.losses.contrastive": "sharpened",
    "train.lafite.losses.contrastive_axis": "both",
    "train.lafite.losses.discriminator_image_contrastive_weight": 1.0,
    "train.lafite.losses.clip_image_contrastive_weight": 1.0,
    "train.lafite.clip_view.kind": "multi_crop",
    "train.lafite.clip_view.small_images": "pad_white",
    "train.lafite.clip_view.antialias": False,
}


def test_all_variants_end_in_a_bundle_that_can_be_gone_on_from(tmp_path: Path) -> None:
    build_world(tmp_path)
    params = tiny_params(VARIANTS)
    run_training(tmp_path, params)
    bundle = load_bundle(tmp_path / "training")
    assert bundle.generator.architecture["style_input"] == "affine"
    assert bundle.generator.architecture["text_concat_max_px"] == 4
    assert bundle.discriminator is not None
    assert bundle.discriminator.semantic_logit == "batch_sum"
    draws = torch.Generator().manual_seed(0)
    latents, texts = torch.randn(2, 8, generator=draws), torch.randn(2, 6, generator=draws)
    with torch.no_grad():
        images = bundle.generator(latents, texts)
    assert torch.isfinite(images).all()

    changes = {**VARIANTS, "train.initial_weights": str(tmp_path / "training")}
    report = run_training(tmp_path, tiny_params(changes), output="again")
    assert report.initial_images_seen == 16
