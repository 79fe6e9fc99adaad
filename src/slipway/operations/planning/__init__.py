"""Plans the number of machines that a fleet needs for given rates, from measurements."""
