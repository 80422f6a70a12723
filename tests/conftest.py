"""Fixtures that tests of several folders share."""

from tests.mlflow_stores import migrated_database, tracking_uri

__all__ = ["migrated_database", "tracking_uri"]
