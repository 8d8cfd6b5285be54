"""Measurements. Each prints ratios to a raw floor taken in the same run; walls are context."""
