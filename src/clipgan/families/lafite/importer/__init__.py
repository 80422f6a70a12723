"""Official weights of LAFITE -> a generator bundle."""

from __future__ import annotations

from pathlib import Path

from clipgan.errors import ImportWeightsError
from clipgan.families.lafite.importer.weights import load_lafite_weights
from clipgan.interop.imported_bundle import make_absolute, save_imported_bundle


def import_lafite(file: Path, out: Path, *, clip_model: str, clip_weights: str) -> str:
    """Import a LAFITE snapshot into the bundle folder ``out``; returns what to print.

    Raises:
        ImportWeightsError: the file is damaged, unsafe or of another network, or takes text
            features of another length than ``clip_model`` gives.
        ClipError: the CLIP cannot be loaded.
    """
    import torch

    networks = load_lafite_weights(file)

    from clipgan.clip.encoder import load_clip

    clip = load_clip(clip_model, clip_weights, precision="fp32", device=torch.device("cpu"))
    text_dim = networks.generator.text_dim
    if clip.embed_dim != text_dim:
        raise ImportWeightsError(
            f"{file}: takes text features of {text_dim} numbers, CLIP {clip_model} gives "
            f"{clip.embed_dim}: name its CLIP with --clip-model"
        )
    save_imported_bundle(
        out,
        "lafite",
        networks.generator,
        networks.discriminator,
        source=file,
        images_seen=networks.images_seen,
        clip_fingerprint=clip.fingerprint,
        clip_weights=make_absolute(clip_weights),
        provenance={"official_clamp": networks.has_clamp},
    )
    lines = [
        f"{out}: LAFITE generator, {networks.generator.resolution_px} px, text features of "
        f"{text_dim} numbers from CLIP {clip_model}; `clipgan generate --model {out}` uses it"
    ]
    if networks.discriminator is None:
        lines.append("the file has no discriminator: training from it starts with a fresh one")
    if not networks.has_clamp:
        lines.append("the file was trained without a clamp of activations; here they end at +-256")
    return "\n".join(lines)


SPEC = import_lafite
