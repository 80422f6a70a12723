"""Networks that come with their weights as pip packages."""
