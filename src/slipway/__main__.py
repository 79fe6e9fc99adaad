"""`python -m slipway`: the command, where it is not installed."""

from slipway.cli import main

if __name__ == "__main__":
    main()
