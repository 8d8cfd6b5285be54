"""What was written once and must be read for ever."""
