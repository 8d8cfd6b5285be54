"""Bytes on a host: blobs, the image cache, root disks."""
