"""Recipes beside the pipeline: the built-in small CLIP, and LAFITE-NN's noise mapper."""
