"""What stages ask of the operating system: files and folders, signals, streams, addresses, text for a terminal."""
