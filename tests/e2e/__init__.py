"""The whole cloud on a real guest, driven by unmodified clients."""
