"""Experiments: named trainings that differ in one choice, at equal compute, over several seeds."""
