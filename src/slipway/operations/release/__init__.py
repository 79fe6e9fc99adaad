"""A candidate beside the stable release, and the verdict on it."""
