"""Record what torch and ultralytics write and say; runs inside an image, not on the host.

    docker run --rm --network none --user 0 -v "$PWD:/recorded" --entrypoint python IMAGE \\
        /recorded/record.py yolov8n yolo11n yolo12n small

For each model: `<name>.pkl.xz`, the data.pkl of the checkpoint as the trainer lays it out, and
`<name>.json.xz`, what torch itself says about it: the keys, shapes and types of the state dict, and
the bytes of each storage in the file. Weights are random and aren't kept. `small` is kept whole
(`small.pt`): a module with one tensor of each odd kind, for the zip and for rare types.

yolov12n is turbo: made by the original repository's code, github.com/sunsmarterjie/yolov12 at
d3cbe10, found through PYTHONPATH.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO, __version__

FOLDER = Path(__file__).parent


def main() -> None:
    """Record the models named on the command line."""
    torch.manual_seed(0)
    for name in sys.argv[1:]:
        if name == "small":
            record(name, small(), {}, whole=True)
        else:
            record(name, *trained(name), whole=False)


def trained(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network `name` and what the trainer notes beside it."""
    model = YOLO(f"{name}.yaml").model.half()
    return model, {
        "train_args": {"task": "detect", "model": f"{name}.yaml", "imgsz": 640, "lr0": 0.01},
        "date": "2026-11-25T03:00:00",
        "version": __version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }


def small() -> nn.Module:
    """Return a module with parameters and buffers of each kind that pickles differently."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 4))
    module.tied = module[2]
    noted = torch.zeros(3)
    noted.note = "makes torch use _rebuild_from_type_v2"
    parameter = nn.Parameter(torch.ones(2))
    parameter.note = "makes torch use _rebuild_parameter_with_state"
    module.register_parameter("parameter", parameter)
    for name, buffer in {
        "noted": noted,
        "none": None,
        "empty": torch.zeros(0, 4),
        "view": torch.zeros(10)[2:5].expand(4, 3),
        "channels_last": torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last),
        "bfloat16": torch.zeros(3, dtype=torch.bfloat16),
        "bool": torch.zeros(3, dtype=torch.bool),
        "uint16": torch.zeros(3, dtype=torch.uint16),
        "float8": torch.zeros(3).to(torch.float8_e4m3fn),
        "complex64": torch.zeros(3, dtype=torch.complex64),
    }.items():
        module.register_buffer(f"a_{name}", buffer)
    module.register_buffer("hidden", torch.ones(3), persistent=False)
    return module


def record(name: str, model: nn.Module, notes: dict[str, Any], *, whole: bool) -> None:
    """Save `model` as the trainer does and write down what it is."""
    file = io.BytesIO()
    torch.save({"epoch": -1, "model": model, "ema": None, "optimizer": None, **notes}, file)
    with zipfile.ZipFile(file) as archive:
        pickle = archive.read("archive/data.pkl")
        storages = {
            info.filename.removeprefix("archive/data/"): info.file_size
            for info in archive.infolist()
            if info.filename.startswith("archive/data/")
        }
    said = {
        "torch": torch.__version__,
        "keys": [
            [key, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for key, tensor in model.state_dict().items()
        ],
        "storages": storages,
    }
    with lzma.open(FOLDER / f"{name}.json.xz", "wt", preset=9) as output:
        json.dump(said, output)
    if whole:
        (FOLDER / f"{name}.pt").write_bytes(file.getvalue())
    else:
        (FOLDER / f"{name}.pkl.xz").write_bytes(
            lzma.compress(pickle, preset=9 | lzma.PRESET_EXTREME)
        )


if __name__ == "__main__":
    main()
