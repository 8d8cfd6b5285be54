"""Image v2: records of images, their bytes, and the changing of both."""
