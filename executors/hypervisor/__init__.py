"""Domains on a host, behind one port: libvirt, or simulated."""
