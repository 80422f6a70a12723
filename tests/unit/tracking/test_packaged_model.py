"""The logged model: no pickle, loadable in a fresh process, the sampler's own bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clipgan.errors import CheckpointError
from clipgan.models.bundle import load_bundle
from clipgan.tracking.mlflow_store import MLFLOW_ENVIRONMENT
from clipgan.tracking.packaged_model import (
    GeneratorPackage,
    compute_data_hash,
    copy_generator_bundle,
    save_packaged_model,
)
from tests.mlflow_stores import save_tiny_bundle
from tests.unit.tracking.tiny_sampler import LOADER, load_tiny_sampler

ROOT = Path(__file__).parents[3]
PICKLE_ENDINGS = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"dataframe_records": [{"text": "no such column"}]}, "missing inputs ['prompt']"),
    ({"dataframe_records": [{"prompt": None}]}, "prompt null is no text: say what to draw"),
    ({"dataframe_records": [{"prompt": "a"}, {"prompt": None}]}, "prompt null is no text"),
    ({"dataframe_records": [{"prompt": 5}]}, "prompt 5 is no text: say what to draw"),
    ({"inputs": [None]}, "prompt null is no text"),
    ({"inputs": {"prompt": ["a", 5]}}, "prompt 5 is no text"),
    ({"instances": [{"prompt": None}]}, "prompt null is no text"),
    ({"inputs": [" "]}, "prompt ' ' is empty: say what to draw"),
    ({"inputs": ["a"], "params": {"num_images": 10**6}}, "1 x 1000000 images are too many"),
    ({"inputs": ["a"] * 3, "params": {"num_images": 500}}, "ask for at most 1000"),
    ({"inputs": ["a"], "params": {"num_images": 0}}, "number of images = 0: use at least 1"),
    ({"inputs": ["a"], "params": {"truncation": 7}}, "truncation = 7.0: use a number from 0 to 1"),
]
PREDICT = """
import hashlib, json, os, sys
os.environ["PATH"] = ""
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
out = model.predict(pd.DataFrame({"prompt": ["a red apple", "a dog"]}),
                    params={"seed": 3, "num_images": 2, "truncation": 0.7})
styled = model.predict(pd.DataFrame({"prompt": ["a dog"]}),
                       params={"truncation": 0.7, "truncation_layers": 2,
                               "latent_truncation": 1.5, "mix": "4:0-1,5:3"})
files = [*out["png"], *styled["png"]]
print(json.dumps([hashlib.sha256(data).hexdigest() for data in files]))
"""


@pytest.fixture
def model_folder(tracking_uri: str, tmp_path: Path) -> Path:
    bundle = save_tiny_bundle(tmp_path / "bundle")
    save_packaged_model(tmp_path / "model", GeneratorPackage(bundle, LOADER))
    return tmp_path / "model"


def child_environment() -> dict[str, str]:
    # The loader of these tests lives in the repository; no store, no network address is given.
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, **MLFLOW_ENVIRONMENT, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_a_fresh_process_gives_the_samplers_bytes(model_folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, str(model_folder)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=child_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sampler = load_tiny_sampler(tmp_path / "bundle", device=torch.device("cpu"))
    files = sampler.sample_png(["a red apple", "a dog"], seed=3, num_images=2, truncation=0.7)
    files += sampler.sample_png(
        ["a dog"], truncation=0.7, truncation_layers=2, latent_truncation=1.5, mix="4:0-1,5:3"
    )
    assert json.loads(done.stdout) == [hashlib.sha256(data).hexdigest() for data in files]
    assert len(set(files)) == 5


def test_the_model_holds_code_and_safetensors_only(model_folder: Path) -> None:
    files = {str(path.relative_to(model_folder)) for path in model_folder.rglob("*.*")}
    assert "artifacts/generator/generator.safetensors" in files
    assert "served_model.py" in files
    assert not {name for name in files if Path(name).suffix in PICKLE_ENDINGS}
    # A pickle of any protocol from 2 begins with 0x80.
    starts = {path: path.read_bytes()[:1] for path in model_folder.rglob("*") if path.is_file()}
    assert b"\x80" not in starts.values()
    requirements = (model_folder / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("clipgan==") for line in requirements)
    assert any(line.startswith("mlflow==") for line in requirements)


def test_the_signature_names_prompt_png_and_parameters(model_folder: Path) -> None:
    import mlflow

    info = mlflow.models.get_model_info(str(model_folder))
    assert info.signature.inputs.to_dict() == [{"type": "any", "name": "prompt", "required": True}]
    assert info.signature.outputs.to_dict() == [{"type": "binary", "name": "png", "required": True}]
    defaults = {param.name: param.default for param in info.signature.params}
    assert defaults == {
        "seed": 0,
        "truncation": 1.0,
        "num_images": 1,
        "truncation_layers": None,
        "latent_truncation": None,
        "mix": "",
    }
    example = json.loads((model_folder / "input_example.json").read_text())
    assert "a red apple" in json.dumps(example)


def test_packaging_leaves_the_working_directory_alone(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "uv.lock").write_text("")
    (work / "pyproject.toml").write_text("")
    monkeypatch.chdir(work)
    bundle = save_tiny_bundle(tmp_path / "bundle")
    save_packaged_model(tmp_path / "model", GeneratorPackage(bundle, LOADER))
    assert {path.name for path in work.iterdir()} == {"uv.lock", "pyproject.toml"}
    assert not (tmp_path / "model" / "uv.lock").exists()


def test_the_copied_bundle_is_whole_without_its_discriminator(tmp_path: Path) -> None:
    from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
    from clipgan.models.bundle import BundleInfo, save_bundle

    generator = load_bundle(save_tiny_bundle(tmp_path / "plain")).generator
    discriminator = LafiteDiscriminator(
        resolution_px=8, text_dim=8, channel_base=64, channel_max=8, minibatch_std_group=2
    )
    info = BundleInfo(family="lafite", clip={}, resolution_px=8, images_seen=0)
    save_bundle(tmp_path / "full", generator, discriminator, info, dtype="fp16")
    copy_generator_bundle(tmp_path / "full", tmp_path / "copy")
    copied = load_bundle(tmp_path / "copy")
    assert copied.discriminator is None
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        "bundle.json",
        "generator.safetensors",
    }


def test_means_go_with_the_bundle_and_make_it_another_model(tmp_path: Path) -> None:
    from clipgan.models.bundle import save_bundle
    from clipgan.models.modality_gap import ModalityMeans

    plain = load_bundle(save_tiny_bundle(tmp_path / "plain"))
    means = ModalityMeans(image=torch.randn(8), text=torch.randn(8))
    info = save_bundle(
        tmp_path / "centred", plain.generator, None, plain.info, dtype="fp16", means=means
    )
    copy_generator_bundle(tmp_path / "centred", tmp_path / "copy")
    copied = load_bundle(tmp_path / "copy")
    assert copied.means is not None
    assert torch.equal(copied.means.text, means.text)
    assert info.files["generator.safetensors"] == plain.info.files["generator.safetensors"]
    assert compute_data_hash(info) != compute_data_hash(plain.info)


def test_a_damaged_bundle_is_not_packaged(tmp_path: Path) -> None:
    bundle = save_tiny_bundle(tmp_path / "bundle")
    weights = bundle / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"generator\.safetensors: missing or damaged"):
        copy_generator_bundle(bundle, tmp_path / "copy")


def post(port: int, body: dict[str, object]) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return bytes(response.read())


def wait_until_healthy(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise AssertionError("the server did not become healthy")


@pytest.mark.slow
def test_mlflow_models_serve_answers_with_pngs(model_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", str(model_folder), "-h", "127.0.0.1", "-p", str(port), "--workers", "1"]
    environment = child_environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    try:
        wait_until_healthy(port, server)
        answer = json.loads(
            post(port, {"dataframe_records": [{"prompt": "a red apple"}], "params": {"seed": 3}})
        )
        (row,) = answer["predictions"]
        data = base64.b64decode(row["png"])
        sampler = load_tiny_sampler(tmp_path / "bundle", device=torch.device("cpu"))
        assert data == sampler.sample_png(["a red apple"], seed=3)[0]
        (tmp_path / "answer.png").write_bytes(data)
        with Image.open(tmp_path / "answer.png") as image:
            assert image.size == (8, 8)
        styled = {"seed": 3, "mix": "7:0-1", "truncation_layers": 2, "latent_truncation": None}
        body = {"dataframe_records": [{"prompt": "a red apple"}], "params": styled}
        (row,) = json.loads(post(port, body))["predictions"]
        mixed = sampler.sample_png(["a red apple"], seed=3, mix="7:0-1", truncation_layers=2)
        assert base64.b64decode(row["png"]) == mixed[0] != data
        both = {"inputs": ["a red apple", "a dog"], "params": {"seed": 3, "num_images": None}}
        rows = json.loads(post(port, both))["predictions"]
        assert [base64.b64decode(row["png"]) for row in rows] == [
            data,
            *sampler.sample_png(["a dog"], seed=3),
        ]
        for body, sentence in REFUSED:
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(port, body)
            assert refused.value.code == 400
            assert sentence in json.loads(refused.value.read())["message"], body
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)
