"""export: a checkpoint as ONNX, TorchScript or a TensorRT engine, in a folder of the user's."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from yolo_image import device, models
from yolo_image.console import OK, Stop, data_stream, talk
from yolo_image.detect import positive, prepare_folder
from yolo_image.manifest import Manifest, load, sha256_of

__all__ = ["run", "why_no_engine"]

FORMATS = ("onnx", "engine", "torchscript")
DEFAULT_OUT = Path("/tmp/export")  # noqa: S108 - the one folder that is writable in every container


def run(argv: list[str]) -> int:
    """Run the command; prints the path of the exported file."""
    options = parser().parse_args(argv)
    manifest = load()
    checkpoint = models.find_model(options.model, manifest)
    prepare_folder(options.out)
    with data_stream() as stream:
        stream.write(f"{export(options, manifest, checkpoint)}\n")
    return OK


def parser() -> argparse.ArgumentParser:
    """Return the command line of `export`."""
    parser = argparse.ArgumentParser(prog="export", description="Convert a checkpoint.")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="(onnx)")
    parser.add_argument("--model", help="a checkpoint (default: the first of the image)")
    parser.add_argument("--imgsz", type=positive, default=640, help="size of the input (640)")
    parser.add_argument("--batch", type=positive, default=1, help="pictures at once (1)")
    parser.add_argument("--half", action="store_true", help="16-bit floating point")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:0 (auto)")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=f"({DEFAULT_OUT})"
    )
    return parser


def export(options: argparse.Namespace, manifest: Manifest, checkpoint: Path) -> Path:
    """Export and return where the file lies now."""
    diagnosis = None
    if options.format == "engine":
        diagnosis = device.diagnose()
        has_tensorrt = importlib.util.find_spec("tensorrt") is not None
        if why := why_no_engine(manifest, diagnosis, has_tensorrt=has_tensorrt):
            raise Stop(why)
    chosen = device.choose(options.device)
    weight = models.weight_of(checkpoint, manifest)
    if weight and not weight.official:
        talk(models.RANDOM.format(file=weight.file))
    # ultralytics writes beside the checkpoint, which lies in a folder that may be read-only; and
    # what a failed export leaves must not look like a result.
    with tempfile.TemporaryDirectory(dir=options.out, prefix=".export-") as folder:
        copy = Path(shutil.copy(checkpoint, folder))
        produced = convert(copy, options, chosen)
        if diagnosis:
            sidecar = produced.with_suffix(".engine.json")
            write_sidecar(sidecar, engine_facts(diagnosis, copy.with_suffix(".onnx"), options))
            sidecar.replace(options.out / sidecar.name)
        target: Path = options.out / produced.name
        produced.replace(target)
    return target


def why_no_engine(
    manifest: Manifest, diagnosis: device.Diagnosis, *, has_tensorrt: bool
) -> str | None:
    """Return why a TensorRT engine can't be made here, None when it can."""
    if not has_tensorrt:
        if missing := manifest.why_missing("tensorrt"):
            return (
                f"this is a partial image, built without TensorRT ({missing.reason}). "
                "Use a complete one, or --format onnx."
            )
        return f"{manifest.id} has no TensorRT. Use --format onnx, or an image of a CUDA stack."
    if diagnosis.state is not device.State.USABLE:
        return (
            "TensorRT builds an engine on the GPU that will run it, and "
            f"{diagnosis.why}. {diagnosis.todo}"
        )
    return None


def convert(copy: Path, options: argparse.Namespace, chosen: str) -> Path:
    """Let ultralytics export the copy, and return what it wrote."""
    disable_flash_attention()
    model = models.load_model(copy)
    arguments = {
        "format": options.format,
        "imgsz": options.imgsz,
        "batch": options.batch,
        "device": chosen,
        **precision(chosen, half=options.half),
    }
    try:
        produced = model.export(**arguments)
    except Exception as error:  # noqa: BLE001 - exporters raise whatever their libraries raise
        raise Stop(f"the export failed: {type(error).__name__}: {error}") from None
    path = Path(str(produced))
    if not path.is_file():
        raise Stop(f"the export wrote nothing ({produced!r}); the lines above say why")
    return path


def precision(chosen: str, *, half: bool) -> dict[str, Any]:
    """Return how this version of ultralytics is asked for 16 bits; nothing when it is not."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    if not half:
        return {}
    if "quantize" in DEFAULT_CFG_DICT:  # 8.4; `half` is deprecated there
        return {"quantize": 16}
    if chosen == "cpu":
        raise Stop("--half needs a GPU here: on the CPU this ultralytics exports 32 bits silently")
    return {"half": True}


def disable_flash_attention() -> None:
    """Make YOLOv12 trace plain attention: flash-attn's kernels have no ONNX form.

    https://github.com/sunsmarterjie/yolov12/issues/132. Only the original repository has the
    switch; the ultralytics package never uses flash-attn.
    """
    from ultralytics.nn.modules import block

    if hasattr(block, "USE_FLASH_ATTN"):
        block.USE_FLASH_ATTN = False


def engine_facts(
    diagnosis: device.Diagnosis, onnx: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Return what an engine depends on; the engine's own header holds none of it."""
    import tensorrt
    import torch
    import ultralytics

    return {
        "tensorrt": tensorrt.__version__,
        "sm": diagnosis.seen.capability,
        "gpu": diagnosis.seen.names[0],
        "driver": diagnosis.seen.driver,
        "torch": str(torch.__version__),
        "ultralytics": ultralytics.__version__,
        "onnx": importlib.metadata.version("onnx"),
        "onnx_sha256": sha256_of(onnx),
        "flash_attention": "off",
        "args": {name: getattr(options, name) for name in ("imgsz", "batch", "half")},
    }


def write_sidecar(path: Path, facts: dict[str, Any]) -> None:
    """Write the facts beside the engine."""
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
