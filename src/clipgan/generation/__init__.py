"""Generation of pictures from prompts with a trained generator."""
