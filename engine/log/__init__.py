"""The log: its broker, its stream, its commits, and all that reads them back."""
