"""The command line. Importing it loads no torch, MLflow, DVC or Prefect."""

from __future__ import annotations

from clipgan.cli.app import main

__all__ = ["main"]
