"""Running a graph over a split as it will be served, and what the answers are worth. Used by training and engines."""
