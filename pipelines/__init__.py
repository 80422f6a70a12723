"""Prefect flows: order, retries and logs; no logic of their own."""
