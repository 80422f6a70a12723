"""Recipe of the built-in small CLIP: prepared data, teacher heads, student, retrieval, export."""
