"""The doctor: checks what of a repository would load on this machine, what would not, and why.

`examine.examine` is its entry point. Checks that do not depend on the machine are in `slipway.lint`.
"""
