"""Named evaluation protocols as data: what is generated, from which captions, against what.

Published values depend on the protocol more than on the model: the same latent diffusion model has
FID 12.8 against COCO's training images and 19.1 against its validation images. A protocol fixes all
of that. It is stored with every value, and values of different protocols are never compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from clipgan.config import CustomProtocol, EvaluateConfig
from clipgan.errors import EvaluationError

Split = Literal["train", "validation", "all"]
ReferenceChoice = Literal["captioned", "whole"]
OFFLINE = "fd-offline"


@dataclass(frozen=True)
class EvaluationProtocol:
    """A complete, frozen recipe of an evaluation.

    Attributes:
        name: as listed.
        summary: one line that says whose protocol it is.
        spaces: feature spaces, see :mod:`clipgan.evaluation.spaces.feature_spaces`.
        reference_split: split of the real images.
        reference: ``captioned``: ``num_generated`` random images of the split, whose captions are
            used (both splits must be the same); ``whole``: all images of the split.
        captions_split: split of the captions. Its images are taken in turn, with one random caption
            of each.
        num_generated: images to generate; None: one for each captioned image of ``captions_split``.
        is_strict: whether a split with fewer images than ``num_generated`` is refused.
        reference_px: side to which the real images are reduced; None: the generator's.
        is_mirrored: whether every real image is used a second time, mirrored.
        has_concepts: whether concept accuracy and caption diversity are measured.
        blur_radii_px: standard deviations of the Gaussian blurs of FID-k.
    """

    name: str
    summary: str
    spaces: tuple[str, ...]
    reference_split: Split
    reference: ReferenceChoice
    captions_split: Split
    num_generated: int | None
    is_strict: bool
    reference_px: int | None
    is_mirrored: bool
    has_concepts: bool
    seed: int
    truncation: float
    neighbourhood: int
    blur_radii_px: tuple[int, ...]


_LITERATURE: dict[str, Any] = {
    "spaces": ("inception-tf",),
    "reference_split": "validation",
    "reference": "captioned",
    "captions_split": "validation",
    "num_generated": 30_000,
    "is_strict": True,
    "reference_px": None,
    "is_mirrored": False,
    "has_concepts": False,
    "seed": 0,
    "truncation": 1.0,
    "neighbourhood": 3,
    "blur_radii_px": (),
}


def _define(name: str, summary: str, **changes: Any) -> EvaluationProtocol:
    return EvaluationProtocol(name=name, summary=summary, **{**_LITERATURE, **changes})


FIXED: dict[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        _define(
            "fid30k-val",
            "TensorFlow's Inception; 30,000 validation images, one random caption of each",
        ),
        _define(
            "fid30k-train-lafite",
            "as LAFITE's code counts: reals are the whole training split and its mirror images; "
            "30,000 captions of the validation split, images in turn",
            reference_split="train",
            reference="whole",
            is_strict=False,
            is_mirrored=True,
        ),
        _define(
            "galip-legacy",
            "as GALIP's code counts: torchvision's Inception on [0, 1] pixels, reals of 256 px "
            "whatever the generator's size, one image for each validation image",
            spaces=("inception-torchvision",),
            reference="whole",
            num_generated=None,
            is_strict=False,
            reference_px=256,
        ),
        _define(
            "clean-fid",
            "fid30k-val with clean-fid's resizing: bicubic with antialias, in floating point",
            spaces=("inception-clean",),
        ),
        _define(
            "zero-shot-coco",
            "30,000 captions of the validation split against all its images; FID-1, 2, 4 and 8 too",
            reference="whole",
            blur_radii_px=(1, 2, 4, 8),
        ),
        _define(
            "cub",
            "small test sets: 30,000 images, captions of the validation split repeated in turn, "
            "against all its images",
            reference="whole",
            is_strict=False,
        ),
    )
}
"""The protocols of the literature; :data:`OFFLINE` takes its numbers from params.yaml."""


def key_metric(protocol_name: str, metric: str) -> str:
    """Name a value among those of several protocols, such as ``fid30k-val/fid``.

    Values of ``fd-offline`` have the metric's name alone.
    """
    return metric if protocol_name == OFFLINE else f"{protocol_name}/{metric}"


def build_offline_protocol(config: EvaluateConfig) -> EvaluationProtocol:
    """Build ``fd-offline``: EfficientNet-lite0 from a package, counts and seed from params.yaml."""
    return EvaluationProtocol(
        name=OFFLINE,
        summary="a packaged ImageNet network; counts, split and seed of params.yaml, no download",
        spaces=("efficientnet-lite0",),
        reference_split=config.reference_split,
        reference="captioned",
        captions_split=config.reference_split,
        num_generated=config.num_generated,
        is_strict=False,
        reference_px=None,
        is_mirrored=False,
        has_concepts=True,
        seed=config.seed,
        truncation=config.truncation,
        neighbourhood=config.neighbourhood,
        blur_radii_px=(),
    )


def list_protocols(config: EvaluateConfig) -> dict[str, EvaluationProtocol]:
    """List every protocol by its name; those of params.yaml come last.

    Raises:
        EvaluationError: a custom protocol takes a name or is based on one that is not there.
    """
    known = {OFFLINE: build_offline_protocol(config), **FIXED}
    for custom in config.custom_protocols:
        if custom.name in known:
            raise EvaluationError(
                f"evaluate.custom_protocols: {custom.name!r} is the name of another protocol: "
                "rename it"
            )
        known[custom.name] = _derive(custom, known)
    return known


def find_protocol(name: str, config: EvaluateConfig) -> EvaluationProtocol:
    """Return the protocol of that name, with the feature spaces of params.yaml besides its own.

    Raises:
        EvaluationError: there is no such protocol; the message lists all.
    """
    known = list_protocols(config)
    if name not in known:
        raise EvaluationError(
            f"protocol {name!r} is unknown: choose one of {', '.join(known)}, or add it to "
            "evaluate.custom_protocols"
        )
    protocol = known[name]
    spaces = dict.fromkeys((*protocol.spaces, *config.feature_spaces))
    return replace(protocol, spaces=tuple(spaces))


def format_protocols(config: EvaluateConfig) -> str:
    """Describe every protocol with all its settings, for a terminal."""
    lines = []
    for protocol in list_protocols(config).values():
        fields = asdict(protocol)
        lines += [protocol.name, f"  {fields.pop('summary')}"]
        del fields["name"]
        lines += [f"  {key}: {_format(key, value)}" for key, value in fields.items()]
        lines.append("")
    return "\n".join(lines).rstrip()


def _derive(custom: CustomProtocol, known: dict[str, EvaluationProtocol]) -> EvaluationProtocol:
    if custom.based_on not in known:
        raise EvaluationError(
            f"evaluate.custom_protocols: {custom.name} is based on {custom.based_on!r}, which is "
            f"none of {', '.join(known)}"
        )
    base = known[custom.based_on]
    changes = custom.model_dump(exclude={"name", "based_on"}, exclude_none=True)
    summary = f"{custom.based_on} with other {', '.join(changes) or 'name'}"
    return replace(base, name=custom.name, summary=summary, **changes)


def _format(key: str, value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if key == "num_generated" and value is None:
        return "one for each captioned image"
    if key == "reference_px" and value is None:
        return "the generator's"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
