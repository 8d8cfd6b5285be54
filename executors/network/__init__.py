"""Networks on a host, behind one port: Linux bridges, or simulated."""
