"""The commands of build.py that end at an image, one module per kind.

build.py imports only the module that a command needs, so that `list` answers at once. Each command
takes the parsed arguments and the project's folder, and returns an exit code.
"""
