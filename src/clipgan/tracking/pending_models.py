"""Logged models whose process died before it had logged all of their files."""

from __future__ import annotations

from collections.abc import Sequence

from clipgan.tracking.mlflow_store import explain_mlflow_errors, open_client


def list_pending_models(tracking_uri: str) -> list[str]:
    """Ids of the models that are neither ready nor failed.

    Raises:
        RegistryError: the store cannot be used.
    """
    client = open_client(tracking_uri)
    with explain_mlflow_errors("logged models cannot be searched"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        model_ids, token = [], None
        while experiments:
            # A filter by status finds nothing in a SQLite store.
            page = client.search_logged_models(experiments, page_token=token)
            model_ids += [str(model.model_id) for model in page if model.status == "PENDING"]
            token = page.token
            if not token:
                break
    return model_ids


def delete_models(model_ids: Sequence[str], tracking_uri: str) -> None:
    """Delete logged models.

    Raises:
        RegistryError: the store cannot be used.
    """
    client = open_client(tracking_uri)
    with explain_mlflow_errors("logged models cannot be deleted"):
        for model_id in model_ids:
            client.delete_logged_model(model_id)
