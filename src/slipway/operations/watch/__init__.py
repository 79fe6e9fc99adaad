"""What answers look like over time: drift without labels, accuracy with few."""
