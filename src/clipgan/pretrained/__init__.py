"""Networks whose weights come with pip packages."""
