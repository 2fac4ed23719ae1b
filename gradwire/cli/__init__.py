"""The terminal: the command `gradwire`."""
