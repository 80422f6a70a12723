"""`make bench` measures what params.yaml asks for, whatever the discriminator."""

from __future__ import annotations

import pytest
import torch

import bench.__main__ as bench
from clipgan.clip.encoder import load_clip
from tests.params import params_with


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stylegan2", "projected"])
def test_every_family_has_its_rows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 1, "WARM_UP_ROUNDS": 0, "STEPS": 1, "SAMPLED_IMAGES": 1}.items():
        monkeypatch.setattr(bench, name, value)
    changes = {"train.batch_size": 2, "train.lafite.discriminator.kind": kind}
    if kind == "projected":
        unknown = ("discriminator_contrastive_weight", "r1_gamma")
        changes |= {f"train.lafite.losses.{key}": 0.0 for key in unknown}
    params = params_with(changes)
    clip = load_clip(
        params.features.clip_model, "built-in", precision="fp32", device=torch.device("cpu")
    )
    rows = [*bench.measure_training(params, clip), *bench.measure_sampling(params, clip)]
    assert [what.split(",")[0] for what, _, _ in rows] == [
        *["training lafite"] * 2,
        *["training galip"] * 2,
        "sampling",
        "sampling",
    ]
    assert all(float(value.split()[0]) > 0 for _, value, _ in rows)


@pytest.mark.slow
def test_a_picture_is_timed_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)  # and one to warm up
    _, value, _ = bench.measure_cold_generation()
    assert float(value.split()[0]) > 0
