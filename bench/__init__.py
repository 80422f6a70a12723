"""Benchmarks: every speed in the README comes from ``make bench``."""
