"""Running a graph over a split as it will be served, and how good the answers are. Used by training and engines."""
