"""detect: boxes for a picture, a folder or a URL."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from yolo_image import device, manifest, models, pictures
from yolo_image.console import FAILED, OK, Stop, data_stream, talk, write_json

__all__ = ["picture_line", "run", "shape_boxes", "shape_picture"]


def run(argv: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(argv)
    found = pictures.find(options.source)
    image = manifest.load()
    checkpoint = models.find_model(options.model, image)
    if options.save:
        prepare_folder(options.save)
    with data_stream() as stream:
        return detect(options, found, image, checkpoint, stream)


def parser() -> argparse.ArgumentParser:
    """Return the command line of `detect`."""
    parser = argparse.ArgumentParser(
        prog="detect",
        description="Print boxes for pictures.",
        epilog="Exit code 0: all pictures read (boxes or not), 1: failed, 2: bad usage.",
    )
    parser.add_argument("source", nargs="?", help="file, folder or URL (default: a bundled one)")
    parser.add_argument("--model", help="a checkpoint (default: the first of the image)")
    parser.add_argument("--conf", type=fraction, default=0.25, help="lowest score (0.25)")
    parser.add_argument("--imgsz", type=positive, default=640, help="size to compute at (640)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:0 (auto)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write annotated pictures there")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def prepare_folder(folder: Path) -> None:
    """Make `folder`, or stop before anything slow happens when it can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise Stop(
            f"{folder}: user {os.getuid()} can't write there. Mount a folder of yours "
            '(-v "$PWD:/data") and run as its owner: --user "$(id -u):0"'
        )


def detect(
    options: argparse.Namespace,
    found: list[pictures.Picture],
    image: manifest.Manifest,
    checkpoint: Path,
    stream: TextIO,
) -> int:
    """Load the model, look at every picture, and report; return the exit code."""
    chosen = device.choose(options.device)
    weight = models.weight_of(checkpoint, image)
    if weight and not weight.official:
        talk(models.RANDOM.format(file=weight.file))
    model = models.load_model(checkpoint)
    shaped = []
    for picture, result in predictions(options, found, model, chosen):
        shaped.append(shape_picture(picture, result))
        if not options.json:
            stream.write(picture_line(shaped[-1]) + "\n")
            stream.flush()
        if options.save:
            save(result, options.save / picture.name)
    if options.json:
        document = {
            "model": checkpoint.name,
            "official_weights": bool(weight and weight.official),
            "device": chosen,
            "images": shaped,
        }
        write_json(stream, document)
    return OK if len(shaped) == len(found) else FAILED


def predictions(
    options: argparse.Namespace, found: list[pictures.Picture], model: Any, chosen: str
) -> Iterator[tuple[pictures.Picture, Any]]:
    """Yield each picture with its result; one that can't be read is talked about and left out."""
    for picture in found:
        try:
            pixels = pictures.decode(picture, pictures.read(picture))
        except Stop as stop:
            talk(f"error: {stop}")
            continue
        results = model.predict(
            pixels, conf=options.conf, imgsz=options.imgsz, device=chosen, verbose=False
        )
        yield picture, results[0]


def save(result: Any, path: Path) -> None:
    """Write the picture with its boxes drawn in."""
    import cv2

    if not cv2.imwrite(str(path), result.plot()):
        raise Stop(f"{path}: can't be written")
    talk(f"saved {path}")


def shape_picture(picture: pictures.Picture, result: Any) -> dict[str, Any]:
    """Return one picture's part of the JSON document from an ultralytics result."""
    height, width = result.orig_shape
    boxes = result.boxes
    return {
        "source": picture.source,
        "width": width,
        "height": height,
        "boxes": shape_boxes(
            result.names, boxes.cls.tolist(), boxes.conf.tolist(), boxes.xyxy.tolist()
        ),
        "milliseconds": {
            phase: round(result.speed[phase], 2)
            for phase in ("preprocess", "inference", "postprocess")
        },
    }


def shape_boxes(
    names: dict[int, str],
    classes: list[float],
    scores: list[float],
    corners: list[list[float]],
) -> list[dict[str, Any]]:
    """Return the boxes, best first."""
    boxes = [
        {
            "name": names[int(number)],
            "class_id": int(number),
            "score": round(score, 4),
            "xyxy": [round(value, 1) for value in corner],
        }
        for number, score, corner in zip(classes, scores, corners, strict=True)
    ]
    return sorted(boxes, key=lambda box: -float(str(box["score"])))


def picture_line(shaped: dict[str, Any]) -> str:
    """Return one picture for people: a heading, then a line per box."""
    count = len(shaped["boxes"])
    inference = shaped["milliseconds"]["inference"]
    heading = (
        f"{shaped['source']}: {shaped['width']}x{shaped['height']}, "
        f"{count} {'box' if count == 1 else 'boxes'}, {inference:.0f} ms"
    )
    lines = [
        f"  {box['name']:<16} {box['score']:.2f}  "
        + " ".join(f"{value:7.1f}" for value in box["xyxy"])
        for box in shaped["boxes"]
    ]
    return "\n".join((heading, *lines))
