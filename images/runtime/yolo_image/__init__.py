"""The commands of a yolo-images image: `docker run IMAGE detect`, `info`, `export`, `doctor`.

Importing the package, or any module of it, imports neither torch nor ultralytics: that takes
seconds, and half of what people ask an image needs none of it. Commands import them when they run.
"""
