"""CLIP's vision tower for the generators that draw through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipgan.models.bundle import GeneratorBundle
from clipgan.models.galip_generator import GalipGenerator

if TYPE_CHECKING:
    # open_clip takes seconds to import: bad prompts are refused without it.
    from clipgan.clip.encoder import ClipEncoder


def attach_tower(bundle: GeneratorBundle, clip: ClipEncoder) -> None:
    """Lend a GALIP generator the tower of ``clip``; other families need none.

    Generator and ``clip`` must be on one device when images are made.

    Raises:
        ClipError: the CLIP has no ViT.
        ConfigError: its ViT is of another size than the generator's.
    """
    if isinstance(bundle.generator, GalipGenerator):
        from clipgan.clip.vit_taps import build_vit_tower

        bundle.generator.attach_tower(build_vit_tower(clip))
