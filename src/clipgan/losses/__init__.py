"""Losses of equation size: adversarial, contrastive, and the two gradient penalties."""
