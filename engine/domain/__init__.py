"""What may happen to a thing. Pure: no I/O, no clock, no randomness; they are inputs."""
