"""Training: a loop that knows no paper, one step object a paper, exact checkpoints."""
