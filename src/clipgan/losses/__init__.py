"""Losses: adversarial, contrastive, reconstruction, and the two gradient penalties."""
