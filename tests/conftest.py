"""Fixtures that tests of several folders share."""

import signal

from tests.mlflow_stores import migrated_database, server, tracking_uri

__all__ = ["migrated_database", "server", "tracking_uri"]


def pytest_sessionstart() -> None:
    """A shell that starts tests in the background makes them, and their children, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
