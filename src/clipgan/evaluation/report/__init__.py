"""The report of an evaluation: words, tables, the page, grids and curves."""
