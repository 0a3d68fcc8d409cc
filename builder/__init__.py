"""From matrix.yaml to a digest: everything on the host that makes images."""
