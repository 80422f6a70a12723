"""Metric values, each with the protocol that made it."""
