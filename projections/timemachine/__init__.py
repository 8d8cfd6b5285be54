"""The time machine: what could be read at a moment of the past, to be read again.

``moments`` builds the read model of a moment out of the nearest snapshot and the log, and keeps a
few; ``worker`` does so in a process of its own; ``service`` asks it for a node's edges; ``past``
reads. Everything here is derived and may be deleted at any time.
"""
