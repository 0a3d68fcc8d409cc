"""The only modules that talk to Docker."""
