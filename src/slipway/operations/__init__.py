"""The life of a classifier after its deployment."""
