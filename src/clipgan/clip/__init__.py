"""CLIP: the frozen encoder, its feature store, and the recipe of the built-in small CLIP."""
