"""Chooses images to label, takes labels in, and joins them to the data set."""
