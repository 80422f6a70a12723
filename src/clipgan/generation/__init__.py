"""From a prompt to pictures with a finished generator."""
