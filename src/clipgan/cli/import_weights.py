"""``clipgan import-weights``: weights of the papers' own code -> a generator bundle."""

from __future__ import annotations

from pathlib import Path

from clipgan.errors import ImportWeightsError


def import_official(
    family: str, file: Path, out: Path, *, clip_model: str, clip_weights: str
) -> str:
    """Import the weights of ``family``; see :func:`import_lafite` and :func:`import_galip`."""
    importers = {"lafite": import_lafite, "galip": import_galip}
    return importers[family](file, out, clip_model=clip_model, clip_weights=clip_weights)


def import_lafite(file: Path, out: Path, *, clip_model: str, clip_weights: str) -> str:
    """Import a LAFITE snapshot into the bundle folder ``out``; gives what to print.

    Raises:
        ImportWeightsError: the file is damaged, unsafe or of another network, or takes text
            features of another length than ``clip_model`` gives.
        ClipError: the CLIP cannot be loaded.
    """
    import torch

    from clipgan.interop.lafite import load_lafite_weights, save_lafite_bundle

    networks = load_lafite_weights(file)

    from clipgan.clip.encoder import load_clip

    clip = load_clip(clip_model, clip_weights, precision="fp32", device=torch.device("cpu"))
    text_dim = networks.generator.text_dim
    if clip.embed_dim != text_dim:
        raise ImportWeightsError(
            f"{file}: takes text features of {text_dim} numbers, CLIP {clip_model} gives "
            f"{clip.embed_dim}: name its CLIP with --clip-model"
        )
    save_lafite_bundle(
        networks,
        out,
        source=file,
        clip_fingerprint=clip.fingerprint,
        clip_weights=_make_absolute(clip_weights),
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


def import_galip(file: Path, out: Path, *, clip_model: str, clip_weights: str) -> str:
    """Import a GALIP ``.pth`` into the bundle folder ``out``; gives what to print.

    Raises:
        ImportWeightsError: the file is damaged, unsafe or of another network, or was trained with
            another CLIP.
        ClipError: the CLIP cannot be loaded, or has no ViT.
    """
    import torch

    from clipgan.interop.galip import build_official_galip, read_galip_file
    from clipgan.interop.imported_bundle import save_imported_bundle

    # Before any CLIP is loaded: a wrong file is the commoner mistake.
    read = read_galip_file(file)

    from clipgan.clip.encoder import load_clip
    from clipgan.clip.vit_taps import build_vit_tower

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
        clip_weights=_make_absolute(clip_weights),
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


def _make_absolute(clip_weights: str) -> str:
    """A bundle is used from anywhere."""
    local = Path(clip_weights)
    return str(local.resolve()) if local.exists() else clip_weights
