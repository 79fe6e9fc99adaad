"""The doctor: for a repository and this machine, what would load, what would not, and why.

`examine.examine` is the whole of it. `chain.broken_links` is the part that needs no time, for whoever serves.
"""
