#!/usr/bin/env python3
"""The command `slipway label-errors`, run from a clone."""

from slipway.cli import run_verb

if __name__ == "__main__":
    run_verb("label-errors")
