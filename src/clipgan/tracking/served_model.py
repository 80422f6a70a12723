"""The code of a logged generator: MLflow runs this file when the model is loaded.

It holds no weights and no network: it calls the loader named in the model's configuration
(``package.module:function``) with the bundle among the artifacts. The serving environment has
clipgan installed; the built-in CLIP comes with it.
"""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import mlflow
import pandas as pd
import torch


class GeneratorModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Prompts -> PNG files.

    Input: a column ``prompt``. Output: a column ``png``; the images of the first prompt first.
    Parameters: ``seed``, ``num_images`` (a prompt), ``truncation`` (0..1), ``truncation_layers``
    (the first so many; null: all), ``latent_truncation`` (above 0; null: none), ``mix`` (layers in
    the style of other seeds: ``SEED:FIRST-LAST``, comma separated).
    """

    def load_context(self, context: Any) -> None:
        """Load the generator bundle and its CLIP on the CPU."""
        load_sampler = resolve_name(context.model_config["loader"])
        artifacts = {name: Path(path) for name, path in context.artifacts.items()}
        self._sampler = load_sampler(
            artifacts["generator"], device=torch.device("cpu"), clip_weights=artifacts.get("clip")
        )

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row for each prompt -> ``num_images`` rows for each prompt."""
        files = self._sampler.sample_png(model_input["prompt"].tolist(), **(params or {}))
        return pd.DataFrame({"png": files})


mlflow.models.set_model(GeneratorModel())
