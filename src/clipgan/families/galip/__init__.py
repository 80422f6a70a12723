"""GALIP (Tao et al. 2023, arXiv 2301.12959) around CLIP's frozen vision transformer: see
:mod:`clipgan.families`."""
