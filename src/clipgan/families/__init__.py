"""The papers that can be trained, a folder each.

A family's folder holds all that is its own; what two families share lies in ``models``, ``losses``,
``training`` and ``interop``. Each part is imported when it is asked for
(:mod:`clipgan.families.registry`), so that a stage depends on the parts that it uses:

=============  ===================================================================
``config``     ``SPEC``: its section of ``train`` in params.yaml; imports no PyTorch
``networks``   ``SPEC``: generator and discriminator, what a bundle stores
``training``   ``SPEC``: how its networks start and what a training step does
``sampling``   ``SPEC``: what a sampler can ask of its generator
``importer``   ``SPEC``: official weights -> a bundle; only where there are such
=============  ===================================================================

A new family is such a folder, a line in the registry, and its section in params.yaml.
"""
