"""Weights of other people's code: read as data, never run, and written as bundles of ours."""
