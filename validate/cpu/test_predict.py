"""Finding boxes as users do: without a network, as any uid, on a read-only root, without a GPU."""

from __future__ import annotations

import os
import re
from typing import Any

from builder.records import PlanRecord
from validate.checks import check, failed
from validate.facts import (
    Attempt,
    CommandRun,
    Comparison,
    Environment,
    Packages,
    document_of,
)

TRIED = re.compile(
    r"Downloading |AutoUpdate|pip install|Failed to resolve|ConnectionError", re.IGNORECASE
)
# Training looks for a font to draw with, even when it draws nothing; predicting does not.
MAY_REACH = frozenset({"onnx: train", "engine: train"})
ENOUGH_SHM = 10**9


@check(
    "C06",
    why="Behind a firewall the first prediction would hang or fail.",
    fix="Put the file into the image, or set the variable that keeps the library from asking.",
)
def test_predicts_offline(
    detect: CommandRun,
    network: tuple[Attempt, ...],
) -> str:
    """Boxes are found without a network, and nothing even tries to reach one."""
    document_of(detect)
    if detect.seconds > 60:
        failed(f"`detect` took {detect.seconds:.0f} s")
    tries = [f"{item.phase}: {item.what}" for item in network if item.phase not in MAY_REACH]
    tries += TRIED.findall(detect.stderr)
    if tries:
        failed(f"tried to reach out: {'; '.join(tries[:10])}")
    return f"`detect` in {detect.seconds:.1f} s, no attempt in it nor in the probes"


@check(
    "C07",
    why="Clusters run images as an arbitrary uid on a read-only root, and refuse the others.",
    fix="Send what is written to /tmp by a variable, or make the folder writable for group 0.",
)
def test_read_only(detect: CommandRun, packages: Packages, host: Any) -> str:
    """Works as a uid without a passwd entry, on a read-only root, with only /tmp to write to."""
    document_of(detect)
    wanted = os.getuid() or 12345
    if (packages.uid, packages.gid) != (wanted, 0):
        failed(f"ran as {packages.uid}:{packages.gid}, asked for {wanted}:0")
    state = host.run("touch /opt/yolo/x /x; test -w /tmp && getent passwd %s", str(packages.uid))
    if "Read-only" not in state.stderr:
        failed(f"the root is not read-only: {state.stderr[:300]}", fix="Mend the validator.")
    if "Traceback" in detect.stderr:
        failed(f"`detect` printed a traceback: {detect.stderr[-800:]}")
    return f"as {packages.uid}:{packages.gid}, {len(detect.outputs)} files saved"


@check(
    "C08",
    why="A library that installs packages while running makes every start another image.",
    fix="Install the package in the image; keep YOLO_AUTOINSTALL=false.",
)
def test_environment_unchanged(
    environments: tuple[Environment, Environment],
    export: Comparison,
    installers: tuple[Attempt, ...],
) -> str:
    """Predicting, training and exporting install nothing and change no installed file."""
    before, after = environments
    wrong = [f"{item.phase}: started {item.what}" for item in installers]
    names = sorted(before.distributions.keys() | after.distributions.keys())
    wrong += [
        f"{name}: {before.distributions.get(name)} became {after.distributions.get(name)}"
        for name in names
        if before.distributions.get(name) != after.distributions.get(name)
    ]
    if not wrong and before.hash != after.hash:
        wrong.append(f"files changed: {before.files} before, {after.files} after")
    if wrong:
        failed("; ".join(wrong[:10]))
    return f"{after.files} files unchanged after {export.kind} {export.step}"


@check(
    "C10",
    why="A raw traceback leaves users to guess which of driver, toolkit, wheel or flag is missing.",
    fix="Catch it in images/runtime and say: run with --gpus all.",
)
def test_without_gpu(
    detect: CommandRun, detect_cuda: CommandRun, info: dict[str, Any], plan: PlanRecord
) -> str:
    """Without a GPU the image computes on the CPU, and refuses CUDA with a message that helps."""
    device = document_of(detect).get("device")
    if device != "cpu":
        failed(f"`detect` ran on {device!r} where there is no GPU")
    if detect_cuda.exit_code == 0 or "Traceback" in detect_cuda.stderr:
        failed(
            f"`detect --device cuda:0` ended with code {detect_cuda.exit_code}: "
            f"{detect_cuda.stderr[-600:]}"
        )
    if plan.cuda and "--gpus" not in detect_cuda.stderr:
        failed(f"the refusal does not say what to do: {detect_cuda.stderr[-600:]}")
    seen = info.get("device")
    if not isinstance(seen, dict) or seen.get("cuda_available") or not seen.get("why_not"):
        failed(f"`info --json` does not say why there is no GPU: {str(seen)[:300]}")
    return f"CPU; cuda:0 refused: {detect_cuda.stderr.strip().splitlines()[-1][:200]}"


@check(
    "C13",
    why="Docker gives 64 MB of shared memory: data loaders die with a bus error.",
    fix="Add --shm-size=2g or --ipc=host to the run line that the image prints.",
)
def test_shared_memory(usage: CommandRun, packages: Packages) -> str:
    """The image says how to get enough shared memory, and has it when run that way."""
    if packages.shm_bytes < ENOUGH_SHM:
        failed(f"shared memory has {packages.shm_bytes / 1e6:.0f} MB", fix="Mend the validator.")
    text = usage.stdout + usage.stderr
    if usage.exit_code != 0:
        failed(f"without arguments the image ended with code {usage.exit_code}: {text[-600:]}")
    if "--shm-size" not in text and "--ipc" not in text:
        failed(f"the run line names neither --shm-size nor --ipc: {text[:800]}")
    return f"{len(usage.stdout.splitlines())} lines of usage name it"
