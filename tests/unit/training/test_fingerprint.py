"""A training's name changes with everything that decides its bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from clipgan.training.fingerprint import compute_training_fingerprint, list_code
from tests.params import params_with

# Formats and messages: they decide no bit, or a wrong one is an error.
WITHOUT_EFFECT = {
    "__init__.py",
    "artifacts.py",
    "loading.py",
    "fields.py",
    "evaluation.py",
    "galip.py",
    "sections.py",
    "training.py",
    "devices.py",
    "errors.py",
    "grids.py",
    "progress.py",
    "run_logger.py",
    "schemas.py",
}


def test_code_covers_what_the_stage_imports() -> None:
    script = (
        "import sys, clipgan.stages.train\n"
        "for name, module in sys.modules.items():\n"
        "    if name.split('.')[0] == 'clipgan':\n"
        "        print(module.__file__)\n"
    )
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(loaded) > 20
    covered = {str(path) for path in list_code()}
    missing = {path for path in loaded if path not in covered}
    assert {Path(path).name for path in missing} <= WITHOUT_EFFECT


def test_name_follows_parameters_data_features_and_start(tmp_path: Path) -> None:
    features, start = tmp_path / "features", tmp_path / "start"
    features.mkdir()
    start.mkdir()
    (features / "manifest.json").write_text("{}")
    (start / "generator.safetensors").write_bytes(b"a")

    def name(images: str = "i", initial: Path | None = start, **changes: object) -> str:
        return compute_training_fingerprint(
            params_with({f"train.{key}": value for key, value in changes.items()}).train,
            images_fingerprint=images,
            features_dir=features,
            initial_folder=initial,
        )

    names = [name(), name(images="j"), name(initial=None), name(seed=1)]
    (start / "generator.safetensors").write_bytes(b"b")
    names.append(name())
    (features / "manifest.json").write_text("[]")
    names.append(name())
    assert len(set(names)) == len(names)
    assert name() == names[-1]
