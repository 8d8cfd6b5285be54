"""Network v2.0: networks, subnets, ports and security groups."""
