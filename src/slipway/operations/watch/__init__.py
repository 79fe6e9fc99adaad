"""Watches answers over time: drift without labels, accuracy with few."""
