"""Compute v2.1: servers, flavors, keypairs, and what administrators see of hosts.

Every view is that of the microversion asked for, with no key that came later: clients check replies
against closed schemas.
"""
