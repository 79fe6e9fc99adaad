"""Runs a graph over a split as in serving, and evaluates its answers. Training and engines use it."""
