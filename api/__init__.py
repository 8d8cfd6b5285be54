"""Edges: what clients of OpenStack, the CLI and programs speak to, over HTTP.

Stateless: reads come from the node's read model, writes go to the engine as requests.
"""
