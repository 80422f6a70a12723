"""What a GPU makes of this code: checks, speeds, a training. See docs/gpu.md."""
