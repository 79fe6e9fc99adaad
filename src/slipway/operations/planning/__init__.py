"""How many machines a fleet needs for given rates, by what was measured."""
