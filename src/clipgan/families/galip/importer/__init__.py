"""Official weights of GALIP -> a generator bundle."""

from __future__ import annotations

from pathlib import Path

from clipgan.families.galip.importer.weights import build_official_galip, read_galip_file
from clipgan.interop.imported_bundle import make_absolute, save_imported_bundle


def import_galip(file: Path, out: Path, *, clip_model: str, clip_weights: str) -> str:
    """Import a GALIP ``.pth`` into the bundle folder ``out``; returns what to print.

    Raises:
        ImportWeightsError: the file is damaged, unsafe or of another network, or was trained with
            another CLIP.
        ClipError: the CLIP cannot be loaded, or has no ViT.
    """
    import torch

    # Before any CLIP is loaded: a wrong file is the commoner mistake.
    read = read_galip_file(file)

    # open_clip takes seconds to import.
    from clipgan.clip.encoder import load_clip
    from clipgan.families.galip.networks.vit_features import build_vit_tower

    clip = load_clip(clip_model, clip_weights, precision="fp32", device=torch.device("cpu"))
    networks = build_official_galip(read, build_vit_tower(clip))
    save_imported_bundle(
        out,
        "galip",
        networks.generator,
        networks.discriminator,
        source=file,
        images_seen=0,
        clip_fingerprint=clip.fingerprint,
        clip_weights=make_absolute(clip_weights),
        provenance={"official_epoch": networks.epoch},
    )
    lines = [
        f"{out}: GALIP generator, {networks.generator.resolution_px} px, raw text features of "
        f"{networks.generator.text_dim} numbers from CLIP {clip_model}; "
        f"`clipgan generate --model {out}` uses it"
    ]
    if networks.discriminator is None:
        lines.append("the file has no discriminator: training from it starts with a fresh one")
    return "\n".join(lines)


SPEC = import_galip
