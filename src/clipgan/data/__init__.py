"""Images and captions: sources, shards, splits and the training loader."""
