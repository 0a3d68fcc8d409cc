"""The image's configuration: environment, entrypoint, user, labels, size. Nothing is started."""

from __future__ import annotations

import re

from builder.engine.client import ImageFacts
from builder.records import PlanRecord
from validate.checks import Measurements, check, failed, not_measured

SWITCHES = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "PYTHONDONTWRITEBYTECODE": "1"}
WRITABLE = ("HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
# Settings may be baked in and read-only, or under /tmp; without them ultralytics picks a place.
SET = ("USER", "YOLO_CONFIG_DIR")
INITS = frozenset({"tini", "dumb-init", "catatonit", "docker-init"})
SECRET = re.compile(r"(?i)\b[\w-]*(token|passw(or)?d|secret|api_?key|credential)s?=\S+")
LOGIN_IN_URL = re.compile(r"://[^/\s:@]+:[^/\s:@]+@")

LABELS = (
    *(f"org.opencontainers.image.{name}" for name in ("title", "version", "revision", "source")),
    "org.opencontainers.image.licenses",
    "org.opencontainers.image.base.name",
    "org.opencontainers.image.base.digest",
    *(
        f"org.yolo-images.{name}"
        for name in (
            "row",
            "lock",
            "minimum-driver",
            "sms",
            "missing",
            "tensorrt",
            "flash-attn",
            "weights",
        )
    ),
)

# A layer above it makes pushes run into proxies' and registries' time limits.
LARGEST_LAYER = 8 * 10**9
# Compressed. Twice what torch with CUDA 12.8 and its libraries came to in November 2026.
LARGEST_IMAGE = 8 * 10**9


@check(
    "S13",
    why="The image would install packages, call home or write where it must not at run time.",
    fix="Set the variables in the family's Dockerfile.",
)
def test_environment(image: ImageFacts) -> str:
    """The environment keeps ultralytics offline and sends what it writes to a writable place."""
    wrong = [
        f"{name}={image.env.get(name, '')!r}, expected {value!r}"
        for name, value in SWITCHES.items()
        if image.env.get(name, "").lower() != value
    ]
    wrong += [
        f"{name}={image.env.get(name, '')!r}, expected a folder under /tmp"
        for name in WRITABLE
        if not f"{image.env.get(name, '')}/".startswith("/tmp/")  # noqa: S108 - in the image
    ]
    # Without USER, getpass.getuser() fails for a uid that has no passwd entry.
    wrong += [f"{name} is not set" for name in SET if not image.env.get(name)]
    if wrong:
        failed("; ".join(wrong))
    return f"{len(SWITCHES) + len(WRITABLE) + len(SET)} variables as they should be"


@check(
    "S16",
    why="A shell as PID 1 swallows SIGTERM, root owns what it writes, and secrets in an image are "
    "public.",
    fix='Write ENTRYPOINT ["/usr/bin/tini", "--", ...] and USER 10001:0; pass secrets as build '
    "secrets.",
)
def test_start(image: ImageFacts, plan: PlanRecord) -> str:
    """The image starts through an init, not as root, sees GPUs when given some, holds no secret."""
    wrong = [*_entrypoint(image), *_user(image), *_paths(image), *_secrets(image)]
    if plan.cuda:
        wrong += _nvidia(image)
    if wrong:
        failed("; ".join(wrong))
    return f"entrypoint {' '.join(image.entrypoint)}, user {image.user}"


def _entrypoint(image: ImageFacts) -> list[str]:
    if not image.entrypoint:
        return ["no ENTRYPOINT"]
    wrong = []
    if image.entrypoint[:2] == ("/bin/sh", "-c"):
        wrong.append(f"the entrypoint is in shell form: {' '.join(image.entrypoint)}")
    elif image.entrypoint[0].rpartition("/")[2] not in INITS:
        wrong.append(f"no init before the entrypoint: {' '.join(image.entrypoint)}")
    if image.command[:2] == ("/bin/sh", "-c"):
        wrong.append(f"the command is in shell form: {' '.join(image.command)}")
    if any("torch" in word or "ultralytics" in word for word in image.healthcheck):
        wrong.append("the health check imports torch: each one would open a CUDA context")
    return wrong


def _user(image: ImageFacts) -> list[str]:
    if not re.fullmatch(r"\d+(:\d+)?", image.user):
        return [f"USER is {image.user!r}, not a number: Kubernetes can't tell that it isn't root"]
    if int(image.user.partition(":")[0]) == 0:
        return ["USER is root"]
    return []


def _paths(image: ImageFacts) -> list[str]:
    parts = image.env.get("LD_LIBRARY_PATH", "").split(":")
    return [
        f"LD_LIBRARY_PATH contains {part}"
        for part in parts
        if part.rstrip("/").endswith(("/stubs", "/compat"))
    ]


def _secrets(image: ImageFacts) -> list[str]:
    texts = {f"{name}={value}" for name, value in image.env.items()}
    texts |= {layer.command for layer in image.layers}
    found = sorted(
        match.group(0).partition("=")[0]
        for text in texts
        for match in SECRET.finditer(text)
        if "--mount=type=secret" not in match.group(0)
    )
    # The value stays out of the message: records are published.
    wrong = [f"{name} looks like a secret" for name in found]
    if any(LOGIN_IN_URL.search(text) for text in texts):
        wrong.append("a URL with a password is in the environment or the history")
    return wrong


def _nvidia(image: ImageFacts) -> list[str]:
    wrong = []
    if not image.env.get("NVIDIA_VISIBLE_DEVICES"):
        wrong.append("NVIDIA_VISIBLE_DEVICES is not set")
    wanted = {"compute", "utility"}
    capabilities = set(image.env.get("NVIDIA_DRIVER_CAPABILITIES", "").split(","))
    if not (wanted <= capabilities or "all" in capabilities):
        wrong.append(f"NVIDIA_DRIVER_CAPABILITIES lacks {', '.join(sorted(wanted - capabilities))}")
    return wrong


@check(
    "C15",
    why="Without labels users can't tell which driver, GPU and weights an image is made for.",
    fix="Build the row again: labels come from the plan.",
)
def test_labels(image: ImageFacts, plan: PlanRecord) -> str:
    """The labels are there and say what the row says."""
    wrong = [f"no label {name}" for name in LABELS if name not in image.labels]
    wrong += [
        f"{name} is {image.labels[name]!r}, the row says {value!r}"
        for name, value in sorted(plan.labels.items())
        # Revision and version say when it was built; an unchanged image keeps those of its build.
        if name.startswith("org.yolo-images.") and image.labels.get(name, value) != value
    ]
    stated = set(filter(None, image.labels.get("org.yolo-images.missing", "").split(",")))
    if stated != (known := {missing.part for missing in plan.missing}):
        wrong.append(f"the missing parts are {sorted(known)}, the label says {sorted(stated)}")
    if image.labels.get("org.opencontainers.image.licenses") not in {None, "AGPL-3.0-only"}:
        wrong.append("the licence is not AGPL-3.0-only, which ultralytics has")
    if plan.cuda and not image.labels.get("org.yolo-images.minimum-driver"):
        wrong.append("org.yolo-images.minimum-driver is empty in a CUDA image")
    if wrong:
        failed("; ".join(wrong))
    return f"{len(image.labels)} labels"


@check(
    "C11",
    why="Layers that are too large run into time limits when pushed, and users wait for them.",
    fix="Split the step that made the layer, or drop what it installed.",
)
def test_size(image: ImageFacts, measurements: Measurements) -> str:
    """The image and its largest layer are within the size budget."""
    if not image.size or not image.layers:
        not_measured("the engine says neither the size nor the layers of this image")
    largest = max(image.layers, key=lambda layer: layer.size)
    measurements.add("image.size", image.size, "B")
    measurements.add("image.largest_layer", largest.size, "B", n=len(image.layers))
    wrong = []
    if image.size > LARGEST_IMAGE:
        wrong.append(f"{image.size / 1e9:.2f} GB, budget {LARGEST_IMAGE / 1e9:.0f} GB")
    if largest.size > LARGEST_LAYER:
        wrong.append(f"a layer of {largest.size / 1e9:.2f} GB: {largest.command[:200]}")
    if wrong:
        failed("; ".join(wrong))
    return f"{image.size / 1e9:.2f} GB, largest layer unpacked {largest.size / 1e9:.2f} GB"
