"""Each check on recorded facts: as they were, and with one thing wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from builder.engine.client import ImageFacts, Layer
from builder.records import PlanRecord
from tests.unit.validate_support import (
    changed_facts,
    good_facts,
    gpu_facts,
    missing,
    no_measurements,
    plan_record,
    weight,
)
from validate.checks import CheckFailed, NotMeasured
from validate.cpu import test_export as exporting
from validate.cpu import test_packages as installed
from validate.cpu import test_predict as predicting
from validate.cpu import test_speed as timing
from validate.cpu import test_stop as stopping
from validate.cpu import test_weights as checkpoints
from validate.facts import Attempt, CommandRun, Stop, document_of
from validate.gpu import test_gpu as on_gpu
from validate.static import test_config as config

PLAN = plan_record()
FACTS = good_facts()


def image(**changes: Any) -> ImageFacts:
    assert FACTS.image is not None
    return replace(FACTS.image, **changes)


def env(**changes: str) -> ImageFacts:
    return image(env={**image().env, **changes})


def command(name: str, **changes: Any) -> CommandRun:
    (found,) = (run for run in FACTS.commands if " ".join(run.argv) == name)
    return found.model_copy(update=changes)


def detect(**changes: Any) -> CommandRun:
    return command("detect --json --save /out", **changes)


def info() -> dict[str, Any]:
    return document_of(command("info --json"))


def fails(function: Callable[..., object], message: str, *arguments: Any) -> None:
    with pytest.raises(CheckFailed) as caught:
        function(*arguments)
    assert message in caught.value.saw


def is_not_measured(function: Callable[..., object], message: str, *arguments: Any) -> None:
    with pytest.raises(NotMeasured, match=message):
        function(*arguments)


def test_s13_environment() -> None:
    assert config.test_environment(image())
    fails(config.test_environment, "YOLO_OFFLINE", env(YOLO_OFFLINE="false"))
    fails(config.test_environment, "HOME", env(HOME="/root"))
    fails(config.test_environment, "USER is not set", env(USER=""))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (image(user="0"), "USER is root"),
        (image(user="0:10001"), "USER is root"),
        (image(user="yolo"), "not a number"),
        (image(user=""), "not a number"),
        (image(entrypoint=()), "no ENTRYPOINT"),
        (image(entrypoint=("/bin/sh", "-c", "x")), "shell form"),
        (image(entrypoint=("python", "-m", "x")), "no init"),
        (env(LD_LIBRARY_PATH="/usr/local/cuda/lib64/stubs"), "stubs"),
        (env(NVIDIA_DRIVER_CAPABILITIES="utility"), "lacks compute"),
        (env(HF_TOKEN="abc"), "HF_TOKEN looks like a secret"),
        (image(layers=(Layer(command="RUN x http://me:pw@host/", size=1),)), "URL with a password"),
        (image(healthcheck=("CMD", "python", "-c", "import torch")), "health check"),
    ],
)
def test_s16_start(changed: ImageFacts, message: str) -> None:
    assert config.test_start(image(), PLAN)
    fails(config.test_start, message, changed, PLAN)


def test_s16_keeps_the_secret_out_of_the_record() -> None:
    with pytest.raises(CheckFailed) as caught:
        config.test_start(env(HF_TOKEN="abc123"), PLAN)
    assert "abc123" not in str(caught.value)


def test_c15_labels() -> None:
    assert config.test_labels(image(), PLAN)
    labels = dict(image().labels)
    fails(config.test_labels, "says ['weights']",
          image(labels=labels | {"org.yolo-images.missing": "weights"}), PLAN)  # fmt: skip
    del labels["org.yolo-images.lock"]
    fails(config.test_labels, "no label org.yolo-images.lock", image(labels=labels), PLAN)
    other = plan_record(labels={"org.yolo-images.row": "yolov12-cu128"})
    fails(config.test_labels, "the row says 'yolov12-cu128'", image(), other)


def test_c11_size() -> None:
    numbers = no_measurements()
    assert config.test_size(image(), numbers)
    assert numbers.values["image.size"].value == image().size
    fails(config.test_size, "budget", image(size=9 * 10**9), numbers)
    fat = (Layer(command="RUN everything", size=9 * 10**9),)
    fails(config.test_size, "RUN everything", image(layers=fat), numbers)
    is_not_measured(config.test_size, "neither", image(layers=()), numbers)


def packages(**changes: Any) -> Any:
    return changed_facts("packages", **changes)


def distributions(**versions: str | None) -> Any:
    found = {item["name"]: item for item in packages().model_dump()["distributions"]}
    for name, version in versions.items():
        dashed = name.replace("_", "-")
        item = found.pop(dashed, {"name": dashed, "version": "", "requires": []})
        if version is not None:
            found[dashed] = {**item, "version": version}
    return packages(distributions=list(found.values()))


def test_c01_imports() -> None:
    assert "torch" in installed.test_imports(packages())
    broken = {"version": None, "seconds": 0.0, "error": "ImportError: libGL.so.1"}
    imports = packages().model_dump()["imports"] | {"cv2": broken}
    fails(installed.test_imports, "import cv2: ImportError: libGL.so.1", packages(imports=imports))
    nms = {"torchvision.ops.nms": "RuntimeError: torchvision::nms does not exist"}
    fails(installed.test_imports, "nms does not exist", packages(operations=nms))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (distributions(ultralytics="8.3.41"), "ultralytics 8.3.41 is installed, the lock says"),
        (distributions(supervision="0.22"), "supervision 0.22 is installed but not locked"),
        (distributions(onnxslim=None), "onnxslim"),
        (distributions(sympy=None), "torch needs sympy"),
        (distributions(onnxruntime="1.23.2"), "onnxruntime and onnxruntime-gpu are both"),
        (distributions(opencv_python="4.12"), "opencv-python and opencv-python-headless"),
    ],
)
def test_c02_lock(changed: Any, message: str) -> None:
    assert installed.test_installed_is_locked(PLAN, packages())
    fails(installed.test_installed_is_locked, message, PLAN, changed)


def test_c02_without_a_lock_is_not_measured() -> None:
    unknown = plan_record(packages={})
    is_not_measured(installed.test_installed_is_locked, "no lock", unknown, packages())


def test_c03_torch() -> None:
    assert installed.test_torch_build(PLAN, packages())
    torch = packages().model_dump()["torch"]
    cpu = packages(torch=torch | {"version": "2.8.0+cpu", "cuda": None, "archs": []})
    fails(installed.test_torch_build, "CPU build", PLAN, cpu)
    few = packages(torch=torch | {"archs": ["sm_80", "sm_90"]})
    fails(installed.test_torch_build, "no kernels for sm 7.5", PLAN, few)
    assert installed.test_torch_build(plan_record(sms=("8.9",)), few)
    fails(installed.test_torch_build, "the row says 2.7.1", plan_record(torch="2.7.1"), packages())


def test_c12_origins() -> None:
    assert installed.test_library_origin(packages())
    second = [*packages().libraries, "/usr/lib/x86_64-linux-gnu/libcudnn.so.9"]
    fails(installed.test_library_origin, "libcudnn lies in", packages(libraries=second))
    stubs = packages(library_path="/usr/local/cuda/lib64/stubs")
    fails(installed.test_library_origin, "stubs", stubs)


def test_c19_leftovers() -> None:
    class Answer:
        stdout = ""

    class Host:
        def run(self, _command: str) -> Answer:
            return Answer()

    assert installed.test_nothing_left_behind(Host())
    Answer.stdout = "/usr/local/cuda/bin/nvcc\n"
    fails(installed.test_nothing_left_behind, "/usr/local/cuda/bin/nvcc", Host())


def weights(**changes: Any) -> Any:
    found = changed_facts("weights").model_dump()
    found["files"] = [{**found["files"][0], **changes}, *found["files"][1:]]
    return changed_facts("weights", files=found["files"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"damaged": "archive/data/3"}, "is damaged at archive/data/3"),
        ({"model": None, "error": "EOFError"}, "does not load: EOFError"),
        ({"file": "best.pt"}, "yolov8n-random.pt is not in the image"),
        ({"sha256": "0" * 64}, "another sha256"),
    ],
)
def test_c05_checkpoints(changes: dict[str, Any], message: str) -> None:
    assert checkpoints.test_checkpoints(PLAN, weights(), info())
    fails(checkpoints.test_checkpoints, message, PLAN, weights(**changes), info())


def test_c05_lineage() -> None:
    model = weights().files[0].model.model_dump()
    turbo = weights(model=model | {"attention": "qk"})
    fails(checkpoints.test_checkpoints, "attention layers qk", PLAN, turbo, info())


def test_c05_random_weights_say_so() -> None:
    named = weight("yolov8n").model_copy(update={"file": "yolov8n.pt"})
    plan = plan_record(weights=(named, weight("yolov8s")))
    fails(checkpoints.test_checkpoints, "a name that doesn't", plan, weights(file="yolov8n.pt"), {})


def test_c20_official_hashes() -> None:
    is_not_measured(checkpoints.test_official_hashes, "no weights", PLAN, weights())
    plan = plan_record(weights=(weight("yolov8n", "c" * 64),), missing=())
    good = weights(file="yolov8n.pt", sha256="c" * 64)
    assert checkpoints.test_official_hashes(plan, good)
    fails(checkpoints.test_official_hashes, "expected cccc", plan, weights(file="yolov8n.pt"))


def test_c06_offline() -> None:
    assert predicting.test_predicts_offline(detect(), ())
    trying = (Attempt(phase="steady", what="resolve github.com"),)
    fails(predicting.test_predicts_offline, "steady: resolve github.com", detect(), trying)
    assert predicting.test_predicts_offline(
        detect(), (Attempt(phase="onnx: train", what="resolve github.com"),)
    )
    loud = detect(stderr="Downloading https://example.org/x.pt")
    fails(predicting.test_predicts_offline, "Downloading", loud, ())
    fails(predicting.test_predicts_offline, "took 61 s", detect(seconds=61.0), ())
    fails(predicting.test_predicts_offline, "ended with code 1", detect(exit_code=1), ())


def test_c07_read_only() -> None:
    class Answer:
        stderr = "touch: cannot touch '/x': Read-only file system"

    class Host:
        def run(self, _command: str, *_words: str) -> Answer:
            return Answer()

    mine = packages(uid=os.getuid() or 12345, gid=0)
    assert predicting.test_read_only(detect(), mine, Host())
    fails(predicting.test_read_only, "ran as 0:0", detect(), packages(uid=0, gid=0), Host())
    noisy = detect(stderr="Traceback (most recent call last)")
    fails(predicting.test_read_only, "printed a traceback", noisy, mine, Host())


def test_c08_environment() -> None:
    before, after = FACTS.environment_before, FACTS.environment_after
    assert before is not None
    assert after is not None
    assert FACTS.export is not None
    judge = predicting.test_environment_unchanged
    assert judge((before, after), FACTS.export, ())
    touched = after.model_copy(update={"hash": "other"})
    fails(judge, "files changed", (before, touched), FACTS.export, ())
    versions = after.model_copy(update={"distributions": {**after.distributions, "onnx": "9"}})
    fails(judge, "became 9", (before, versions), FACTS.export, ())
    started = (Attempt(phase="export", what="pip install onnx"),)
    fails(judge, "export: started pip install onnx", (before, after), FACTS.export, started)


def test_c09_stop() -> None:
    numbers = no_measurements()
    mine = {"uid": os.getuid() or 12345}
    saved = detect(outputs=tuple(item.model_copy(update=mine) for item in detect().outputs))
    assert stopping.test_stops(FACTS.stops, saved, numbers)
    killed = (Stop(doing="sleep", exit_code=137, seconds=10.2),)
    fails(stopping.test_stops, "took 10.2 s and ended with code 137", killed, saved, numbers)
    roots = tuple(item.model_copy(update={"uid": 0}) for item in detect().outputs)
    fails(stopping.test_stops, "belongs to 0", FACTS.stops, detect(outputs=roots), numbers)


def test_c10_without_gpu() -> None:
    refused = command("detect --device cuda:0")
    judge = predicting.test_without_gpu
    assert judge(detect(), refused, info(), PLAN)
    raw = refused.model_copy(update={"stderr": "Traceback ...\nRuntimeError: --gpus"})
    fails(judge, "Traceback", detect(), raw, info(), PLAN)
    mute = refused.model_copy(update={"stderr": "no"})
    fails(judge, "does not say what to do", detect(), mute, info(), PLAN)
    fails(judge, "does not say why", detect(), refused, {"device": {}}, PLAN)


def test_c13_shared_memory() -> None:
    judge = predicting.test_shared_memory
    assert judge(command(""), packages())
    fails(judge, "64 MB", command(""), packages(shm_bytes=64 * 10**6))
    fails(judge, "names neither", command("", stdout="docker run image"), packages())


def cold(**phases: float) -> Any:
    seen = FACTS.cold[0]
    slow = seen.model_copy(
        update={
            "phases": {**seen.phases, **phases},
            "finished": seen.finished + sum(phases.values()),
        }
    )
    return ((0.5, slow),) * 3


def test_c16_cold_start() -> None:
    numbers = no_measurements()
    assert timing.test_cold_start(cold(), numbers)
    assert numbers.values["cold.container"].n == 3
    fails(timing.test_cold_start, "slowest: load", cold(load=90.0), numbers)
    fails(timing.test_cold_start, "slowest: first", cold(first_inference=30.0), numbers)


def test_c17_hundred_pictures() -> None:
    numbers = no_measurements()
    steady = changed_facts("steady")
    assert timing.test_hundred_pictures(steady, numbers)
    assert numbers.values["steady.p90"].value >= numbers.values["steady.p50"].value
    leaking = [10**9 + number * 3 * 10**6 for number in range(100)]
    fails(
        timing.test_hundred_pictures,
        "still does",
        changed_facts("steady", resident=leaking, resident_before=10**9),
        numbers,
    )
    stepped = [12 * 10**8] * 100
    assert timing.test_hundred_pictures(
        changed_facts("steady", resident=stepped, resident_before=10**9), numbers
    )
    aborted = changed_facts("steady", aborts=["RuntimeError: x"])
    fails(timing.test_hundred_pictures, "1 of 100 aborted: RuntimeError: x", aborted, numbers)


def test_c18_parity() -> None:
    numbers = no_measurements()
    export = changed_facts("export")
    assert exporting.test_onnx_parity(export, numbers)
    boxes = export.model_dump()["export_boxes"]
    moved = [[[k, s, x + 9, y, u + 9, v] for k, s, x, y, u, v in picture] for picture in boxes]
    other = changed_facts("export", export_boxes=moved)
    fails(exporting.test_onnx_parity, "differs from its checkpoint", other, numbers)
    nothing: list[list[object]] = [[]] * len(boxes)
    empty = changed_facts("export", checkpoint_boxes=nothing, export_boxes=nothing)
    is_not_measured(exporting.test_onnx_parity, "too few", empty, numbers)
    broke = changed_facts("export", step="export", error="ModuleNotFoundError: onnxscript")
    fails(exporting.test_onnx_parity, "export failed: ModuleNotFoundError", broke, numbers)


WHOLE: PlanRecord = plan_record(missing=())


def test_g02_kernels() -> None:
    assert on_gpu.test_kernels_run(gpu_facts(), WHOLE)
    fails(on_gpu.test_kernels_run, "can't use it", gpu_facts(available=False), WHOLE)
    none = {"conv2d": {"error": "no kernel image is available"}}
    fails(on_gpu.test_kernels_run, "no kernel image", gpu_facts(kernels=none), WHOLE)
    zeros = {"matmul": {"error": None, "finite": True, "largest": 60.0, "difference": 60.0}}
    fails(on_gpu.test_kernels_run, "off by 60", gpu_facts(kernels=zeros), WHOLE)
    is_not_measured(on_gpu.test_kernels_run, "no CUDA", gpu_facts(), plan_record(cuda=None))


def test_g07_first_inference() -> None:
    numbers = no_measurements()
    assert on_gpu.test_first_inference(WHOLE, cold(), numbers)
    assert "gpu.cold.total" in numbers.values
    fails(on_gpu.test_first_inference, "budget", WHOLE, cold(first_inference=90.0), numbers)


def test_g12_and_g14_engine() -> None:
    numbers = no_measurements()
    for judge in (on_gpu.test_engine, on_gpu.test_engine_parity):
        assert judge(gpu_facts(), WHOLE, numbers)
        engine = gpu_facts().engine.model_dump() | {"step": "load the export", "error": "magicTag"}
        fails(judge, "load the export failed: magicTag", gpu_facts(engine=engine), WHOLE, numbers)
        partial = plan_record(missing=(missing("tensorrt"),))
        is_not_measured(judge, "no tensorrt", gpu_facts(engine=None), partial, numbers)
        is_not_measured(judge, "not part of this row", gpu_facts(engine=None), WHOLE, numbers)


def test_g21_checkpoints_on_the_host() -> None:
    is_not_measured(on_gpu.test_checkpoints_on_host, "no weights", PLAN, weights())
    official = (weight("yolov8n", "c" * 64), weight("yolov8s"))
    plan = plan_record(weights=official, missing=())
    good = weights(file="yolov8n.pt", sha256="c" * 64)
    assert on_gpu.test_checkpoints_on_host(plan, good)
    fails(on_gpu.test_checkpoints_on_host, "expected c", plan, weights(file="yolov8n.pt"))
