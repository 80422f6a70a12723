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
from mlflow.exceptions import MlflowException

from clipgan.errors import ClipganError

MAX_IMAGES = 1000
"""Most images of one request: they are all kept in memory, and other requests wait."""


class GeneratorModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Prompts -> PNG files.

    Input: a column ``prompt``, as JSON. Output: a column ``png``, prompt after prompt.
    Parameters: ``seed``, ``num_images`` (a prompt; at most :data:`MAX_IMAGES` in all),
    ``truncation`` (0..1), ``truncation_layers`` (the first so many; null: all),
    ``latent_truncation`` (above 0; null: none), ``mix`` (layers in the style of other seeds:
    ``SEED:FIRST-LAST``, comma separated). Null stands for a parameter's default.
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
        """Draw ``num_images`` rows for each row of prompts.

        Raises:
            MlflowException: a prompt or parameter is out of range; the server answers 400 with the
                message. Any other exception would appear in the server's log only.
        """
        prompts = _list_prompts(model_input)
        given = {name: value for name, value in (params or {}).items() if value is not None}
        _check_request(prompts, given.get("num_images", 1))
        try:
            files = self._sampler.sample_png(prompts, **given)
        except ClipganError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame({"png": files})


def _list_prompts(model_input: pd.DataFrame) -> list[Any]:
    rows = model_input["prompt"].tolist()
    # {"inputs": ["a", "b"]} comes as one row.
    return rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows


def _check_request(prompts: list[Any], num_images: int) -> None:
    for prompt in prompts:
        if not isinstance(prompt, str):
            # pandas has NaN for null beside other values; JSON itself has none.
            shown = "null" if prompt is None or repr(prompt) == "nan" else repr(prompt)
            raise MlflowException.invalid_parameter_value(
                f"prompt {shown} is no text: say what to draw, such as 'a red apple'"
            )
    total = len(prompts) * num_images
    if total > MAX_IMAGES:
        raise MlflowException.invalid_parameter_value(
            f"{len(prompts)} x {num_images} images are too many for one request: ask for at most "
            f"{MAX_IMAGES}"
        )


mlflow.models.set_model(GeneratorModel())
