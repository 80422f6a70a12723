"""MLflow: runs, metrics, model versions. The only package that knows it."""
