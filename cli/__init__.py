"""The `cumulog` command line, and the composition root that wires every process (serve.py)."""
