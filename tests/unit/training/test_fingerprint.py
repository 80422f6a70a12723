"""A training's name changes with everything that decides its bits."""

from __future__ import annotations

from pathlib import Path

from clipgan.training.fingerprint import compute_training_fingerprint
from tests.params import params_with


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
