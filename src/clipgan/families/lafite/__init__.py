"""LAFITE (Zhou et al. 2022, arXiv 2111.13792) on StyleGAN2: see :mod:`clipgan.families`."""
