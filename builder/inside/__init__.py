"""Runs inside an image, never on the host: read as a file, mounted, and started there."""
