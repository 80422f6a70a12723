"""Semantic object accuracy (Hinz et al. 2020): does a detector find what the caption names?

A caption names one of COCO's 80 things when it contains the word or its plural. The paper uses
YOLOv3 and a curated list of captions, this file torchvision's Faster R-CNN and plain words. The
protocol therefore names the detector, and values of other programs do not compare.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clipgan.evaluation.metrics.inputs import ImageInputs
from clipgan.evaluation.metrics.metric import Found, Skip, metric
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.spaces.inception import WeightsFile, find_hub_weights
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.intervals import Estimate
from clipgan.metrics.values import SHARE

DETECTOR_URL = "https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"
DETECTOR = "torchvision fasterrcnn_resnet50_fpn_v2"
SCORE_THRESHOLD = 0.5
_BATCH = 8
_IRREGULAR = {"person": ("people", "man", "men", "woman", "women", "child", "children"),
              "mouse": ("mice",), "knife": ("knives",), "sheep": (), "skis": ()}  # fmt: skip


def build_detector(captions: Sequence[str], device: torch.device) -> FeatureSpace | Skip:
    """Load the detector as a feature space; features (N, 91) say which things are in an image."""
    weights = find_hub_weights(DETECTOR_URL)
    if isinstance(weights, str):
        return Skip(weights)
    if not match_classes(captions).any():
        return Skip("no caption names one of COCO's 80 things")
    detector = ObjectDetector(weights).to(device)
    return FeatureSpace(
        spec="detector",
        slug="",
        extractor=DETECTOR,
        weights_sha256=detector.weights_sha256,
        resize="the detector's own",
        encode=lambda images: (detector.find_things(images).float(), None),
    )


@metric("soa", better="higher", value_range=SHARE, needs=ImageInputs, find_network=build_detector)
def measure_object_accuracy(inputs: ImageInputs) -> Found:
    """SOA-C averages over things, SOA-I over images."""
    named = match_classes(inputs.captions)
    estimates = compute_object_accuracy(named, inputs.features > 0, inputs.grouping)
    settings = {"captions_with_things": int(named.any(1).sum())}
    return {end: replace(estimate, settings=settings) for end, estimate in estimates.items()}


class ObjectDetector(nn.Module):
    """Faster R-CNN, frozen; it finds the things in each image."""

    def __init__(self, weights: WeightsFile) -> None:
        super().__init__()
        self.weights_sha256 = weights.sha256
        from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

        network: Any = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
        network.load_state_dict(torch.load(weights.path, map_location="cpu", weights_only=True))
        self.network = network
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def find_things(self, images_uint8: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, 91) bool by COCO's numbers of things."""
        device = next(self.network.parameters()).device
        present = torch.zeros(len(images_uint8), 91, dtype=torch.bool)
        for start in range(0, len(images_uint8), _BATCH):
            batch = images_uint8[start : start + _BATCH].to(device).float() / 255
            for place, boxes in enumerate(self.network(list(batch))):
                labels = boxes["labels"][boxes["scores"] >= SCORE_THRESHOLD]
                present[start + place, labels.cpu()] = True
        return present


def coco_classes() -> dict[str, int]:
    """Names of COCO's 80 things -> their class numbers in torchvision's detectors."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights

    names = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]
    return {
        name: number for number, name in enumerate(names) if name not in {"__background__", "N/A"}
    }


def match_classes(captions: Sequence[str]) -> Tensor:
    """(N, 91) bool: which things each caption names."""
    patterns = {number: _build_pattern(name) for name, number in coco_classes().items()}
    named = torch.zeros(len(captions), 91, dtype=torch.bool)
    for row, caption in enumerate(captions):
        for number, pattern in patterns.items():
            named[row, number] = pattern.search(caption.lower()) is not None
    return named


def compute_object_accuracy(
    named: Tensor, present: Tensor, grouping: Grouping
) -> dict[str, Estimate]:
    """Compute the share of named things that are detected: ``_c`` by things, ``_i`` by images.

    Args:
        named: (N, T) bool, the things that each image's caption names; at least one caption names
            something.
        present: (N, T) bool, the things in each image.
    """
    hits = named & present

    def by_image(kept: Tensor) -> float:
        return float(hits[kept].sum()) / max(float(named[kept].sum()), 1.0)

    def by_class(kept: Tensor) -> float:
        asked = named[kept].sum(0)
        shares = hits[kept].sum(0).double() / asked.clamp_min(1)
        return float(shares[asked > 0].mean()) if bool((asked > 0).any()) else 0.0

    every = torch.ones(len(named), dtype=torch.bool)
    return {
        "_c": Estimate(by_class(every), grouping.leave_out(by_class)),
        "_i": Estimate(by_image(every), grouping.leave_out(by_image)),
    }


def _build_pattern(name: str) -> re.Pattern[str]:
    words = [name, f"{name}s", f"{name}es", *_IRREGULAR.get(name, ())]
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b")
