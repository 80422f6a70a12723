"""Numbers: the value of a metric, the comparison of two values, and the table of all."""
