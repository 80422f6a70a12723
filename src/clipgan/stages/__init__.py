"""Step functions, one a stage: config section and named paths in, report out."""
