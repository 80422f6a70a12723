"""Feature extractors by name, and the features of many images."""
