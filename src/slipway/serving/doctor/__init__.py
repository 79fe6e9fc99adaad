"""The doctor: for a repository and this machine, what would load, what would not, and why.

`examine.examine` is the whole of it. What needs no machine is in `slipway.lint`.
"""
