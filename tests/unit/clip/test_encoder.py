"""The encoder: any open_clip weights file, the right activation, unit vectors, clear refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.clip.weights import list_known_models
from clipgan.errors import ClipError
from clipgan.images import CLIP_MEAN, CLIP_STD, to_clip_input
from tests.unit.clip import tiny_open_clip as tiny

CPU = torch.device("cpu")
CAPTIONS = ["a red apple", "a dog that sleeps in the sun beside a very large blue house", "rocket"]


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny.register(tmp_path_factory.mktemp("configs"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def load(weights: Path | str, precision: str = "fp32") -> ClipEncoder:
    return load_clip(tiny.NAME, str(weights), precision=precision, device=CPU)


def assert_same_features(encoder: ClipEncoder, model: Any, images: torch.Tensor) -> None:
    """As open_clip computes them from the model itself."""
    with torch.no_grad():
        pixels = to_clip_input(images, tiny.SIDE_PX, CLIP_MEAN, CLIP_STD)
        tokens = open_clip.get_tokenizer(tiny.NAME)(CAPTIONS)
        wanted = model.encode_image(pixels, normalize=True), model.encode_text(tokens, True)
    torch.testing.assert_close(encoder.encode_images(images), wanted[0], atol=2e-3, rtol=0)
    torch.testing.assert_close(encoder.encode_texts(CAPTIONS), wanted[1], atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["state_dict.pt", "torchscript.pt"])
def test_openai_files_get_quickgelu(tmp_path: Path, images: torch.Tensor, kind: str) -> None:
    model = tiny.build(quick_gelu=True)
    path = tmp_path / kind
    if kind == "state_dict.pt":
        torch.save(tiny.openai_state(model), path)
    else:
        tiny.save_torchscript(model, path)
    encoder = load(path)
    assert encoder.fingerprint["activation"] == "QuickGELU"
    assert_same_features(encoder, model, images)
    # The wrong activation would be a real error, not rounding.
    wrong = tiny.build(quick_gelu=False)
    wrong.load_state_dict(model.state_dict())
    with pytest.raises(AssertionError):
        assert_same_features(encoder, wrong, images)


@pytest.mark.parametrize("kind", ["weights.pt", "training.bin", "weights.safetensors"])
def test_open_clip_files_keep_gelu(tmp_path: Path, images: torch.Tensor, kind: str) -> None:
    model = tiny.build(quick_gelu=False)
    path = tmp_path / kind
    state = model.state_dict()
    if kind == "training.bin":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    elif kind == "weights.pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    encoder = load(path)
    assert encoder.fingerprint["activation"] == "GELU"
    assert_same_features(encoder, model, images)


def test_configuration_beside_the_weights_is_heeded(tmp_path: Path, images: torch.Tensor) -> None:
    model = tiny.build(quick_gelu=True)
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    tree = {
        "model_cfg": {"quick_gelu": True},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(tree))
    encoder = load(tmp_path / "open_clip_model.safetensors")
    assert encoder.fingerprint["activation"] == "QuickGELU"
    half = (0.5, 0.5, 0.5)
    pixels = to_clip_input(images, tiny.SIDE_PX, half, half)
    torch.testing.assert_close(
        encoder.encode_images(images), model.encode_image(pixels, normalize=True)
    )


def test_features_are_unit_float32_and_differentiable(tmp_path: Path, images: torch.Tensor) -> None:
    encoder = load(save_weights(tmp_path))
    images.requires_grad_(True)
    features = encoder.encode_images(images)
    assert features.shape == (3, encoder.embed_dim) == (3, 16)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    features[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in encoder.parameters())
    texts = encoder.encode_texts(CAPTIONS)
    assert not texts.requires_grad
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(3))


def test_frozen_and_always_in_evaluation_mode(tmp_path: Path) -> None:
    encoder = load(save_weights(tmp_path))
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_bf16_weights_are_held_once_and_stay_close(tmp_path: Path, images: torch.Tensor) -> None:
    path = save_weights(tmp_path)
    exact, half = load(path), load(path, "bf16")
    assert {p.dtype for p in half.clip.visual.parameters()} == {torch.bfloat16}
    features = half.encode_images(images)
    assert features.dtype == torch.float32
    assert float(F.cosine_similarity(features, exact.encode_images(images)).min()) > 0.995
    texts = F.cosine_similarity(half.encode_texts(CAPTIONS), exact.encode_texts(CAPTIONS))
    assert float(texts.min()) > 0.995
    assert half.fingerprint == exact.fingerprint | {"precision": "bf16"}


def test_fingerprint_tells_weights_apart(tmp_path: Path) -> None:
    found = load(save_weights(tmp_path, seed=0)).fingerprint
    other = load(save_weights(tmp_path, seed=1)).fingerprint
    assert {key for key in found if found[key] != other[key]} == {"weights_sha256"}
    assert found["model"] == tiny.NAME
    assert "32 px" in found["preprocessing"]


def save_weights(folder: Path, seed: int = 0) -> Path:
    path = folder / f"weights{seed}.safetensors"
    save_file(tiny.build(quick_gelu=False, seed=seed).state_dict(), path)
    return path


def test_unknown_model_names_close_ones() -> None:
    with pytest.raises(ClipError, match=r"'ViT-B32' is unknown.*ViT-B-32"):
        load_clip("ViT-B32", "openai", precision="fp32", device=CPU)


def test_missing_weights_file_names_the_known_tags() -> None:
    with pytest.raises(ClipError, match=r"'nowhere.pt': neither a file nor.*laion2b_s34b_b79k"):
        load_clip("ViT-B-32", "nowhere.pt", precision="fp32", device=CPU)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    state = tiny.build(quick_gelu=False).state_dict()
    state["visual.proj"] = torch.zeros(64, 8)
    torch.save(state, path)
    with pytest.raises(ClipError, match=r"other.pt: these are not the weights of clipgan-test-vit"):
        load(path)


def test_openai_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    state = tiny.openai_state(tiny.build(quick_gelu=True))
    del state["visual.proj"]
    torch.save(state, path)
    with pytest.raises(ClipError, match=r"not the weights of clipgan-test-vit.*visual.proj"):
        load(path)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_damaged_weights_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    whole = save_weights(tmp_path)
    if suffix == "pt":
        torch.save(tiny.build(quick_gelu=False).state_dict(), path)
        whole = path
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ClipError, match=rf"cut.{suffix}"):
        load(path)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (f"{os.environ['CLIPGAN_TEST_FOLDER']}/executed",)


@pytest.mark.parametrize("with_openai_keys", [False, True])
def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_openai_keys: bool
) -> None:
    monkeypatch.setenv("CLIPGAN_TEST_FOLDER", str(tmp_path))
    model = tiny.build(quick_gelu=False)
    state = tiny.openai_state(model) if with_openai_keys else model.state_dict()
    path = tmp_path / "evil.pt"
    torch.save(dict(state) | {"payload": Payload()}, path)
    with pytest.raises(ClipError, match=r"evil.pt: damaged or unsafe"):
        load(path)
    assert not (tmp_path / "executed").exists()


def test_tag_that_cannot_be_downloaded_says_how_to_give_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    with pytest.raises(ClipError, match=r"'openai': .*ViT-B-32.*name resolution.*local weights"):
        load_clip("ViT-B-32", "openai", precision="fp32", device=CPU)


def test_tag_sets_its_own_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: torch.Tensor
) -> None:
    """A plain model name with a tag that was trained with QuickGELU."""
    model = tiny.build(quick_gelu=True)
    path = tmp_path / "downloaded.safetensors"
    save_file(model.state_dict(), path)
    settings = {"quick_gelu": True, "mean": CLIP_MEAN, "std": CLIP_STD}
    monkeypatch.setattr(open_clip, "is_pretrained_cfg", lambda *_: True)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: settings)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_: str(path))
    encoder = load("openai")
    assert encoder.fingerprint["activation"] == "QuickGELU"
    assert_same_features(encoder, model, images)


def test_builtin_weights_fit_the_builtin_model_only() -> None:
    with pytest.raises(ClipError, match=r"'built-in' fits clipgan-\S+ only"):
        load_clip("ViT-B-32", "built-in", precision="fp32", device=CPU)


def test_missing_folder_of_the_builtin_model_is_named(tmp_path: Path) -> None:
    builtin = list_known_models()[0]
    with pytest.raises(ClipError, match=r"nothing'?: no such folder"):
        load_clip(builtin, str(tmp_path / "nothing"), precision="fp32", device=CPU)
