"""Feature maps of the frozen image trunk for a few fixed views of every image, computed once."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipgan.artifacts import atomic_path, hash_json
from clipgan.config import PretrainClipConfig
from clipgan.devices import DTYPES
from clipgan.images import resize, to_unit_range
from clipgan.pretrained.efficientnet_lite import EfficientNetLite
from clipgan.pretraining.prepared import PretrainingData
from clipgan.pretraining.views import build_views
from clipgan.progress import progress_bar

INFERENCE_BATCH = 64


def load_or_make_maps(
    config: PretrainClipConfig,
    data: PretrainingData,
    trunk: EfficientNetLite,
    device: torch.device,
    work: Path,
) -> Tensor:
    """Maps (V, N, 1280, G, G) float16; view 0 is the unchanged image, the others are random.

    Each view is a file of its own in ``work``, so that an interrupted run makes only the missing
    ones.
    """
    views = []
    for view in range(config.views):
        made_from = [data.fingerprint, trunk.weights_sha256]
        recipe = [*made_from, config.image_side_px, config.precision, config.seed, view]
        path = work / f"maps-{hash_json(recipe)[:16]}.safetensors"
        if not path.is_file():
            maps = _make_view(config, data, trunk, device, view)
            with atomic_path(path) as temporary:
                save_file({"maps": maps}, temporary)
        views.append(load_file(path)["maps"])
    return torch.stack(views)


@torch.no_grad()
def _make_view(
    config: PretrainClipConfig,
    data: PretrainingData,
    trunk: EfficientNetLite,
    device: torch.device,
    view: int,
) -> Tensor:
    rng = torch.Generator(device)
    rng.manual_seed(config.seed + view)
    # A copy, so that the trunk itself keeps the precision of its file.
    fast = copy.deepcopy(trunk).to(device, DTYPES[config.precision])
    batches = []
    with progress_bar(f"trunk, view {view + 1}", len(data.images_uint8), "images") as bar:
        for batch in torch.split(data.images_uint8, INFERENCE_BATCH):
            images = batch.to(device)
            pixels = build_views(images, rng) if view else to_unit_range(images)
            maps = fast.encode_maps(resize(pixels, config.image_side_px))
            batches.append(maps.to("cpu", torch.float16).contiguous())
            bar.advance(len(batch))
    return torch.cat(batches)
