"""Services of the operating system for the stages: files and folders, signals, streams, addresses, text for a
terminal."""
