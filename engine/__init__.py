"""Where requests become facts: the log, the bus, and the decider between them."""
