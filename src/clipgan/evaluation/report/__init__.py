"""An evaluation as files to look at: words, tables, the page, grids and curves."""
