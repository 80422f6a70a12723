"""The smallest family: what a new one has to bring. Its images are one plain colour."""
