"""Find what is in the pictures named on the command line."""  # noqa: INP001 - a script

import sys

from ultralytics import YOLO

YOLO("yolo12n.pt").predict(sys.argv[1:], save=True)
