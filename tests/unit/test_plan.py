from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from builder.bakefile import bake_definition, write_contexts
from builder.errors import InvalidInput
from builder.folders import Folders, hash_images
from builder.lock import load_lock
from builder.matrix import load_matrix, select
from builder.plan import BuildInputs, Plan, make_plan
from builder.records import Missing
from builder.requirements import parse_lock

GOLDEN = Path(__file__).parent / "golden"
MISSING = tuple(
    Missing.model_validate({"part": part, "source": f"https://host/{part}", "reason": "no route"})
    for part in ("tensorrt", "flash-attn", "weights")
)


def inputs(**changes: object) -> BuildInputs:
    values: dict[str, object] = {
        "base_source": "registry",
        "base_digest": "sha256:" + "d" * 64,
        "images": {name: name for name in ("base", "stack", "yolov8", "yolov12", "runtime")},
        "revision": "0123456789abcdef",
        "source": "https://example.org/yolo-images",
        **changes,
    }
    return BuildInputs(**values)  # type: ignore[arg-type]  # a dict of fields in a test


def plan(
    root: Path,
    row_id: str,
    missing: tuple[Missing, ...] = (),
    **changes: object,
) -> Plan:
    (row,) = select(load_matrix(root / "matrix.yaml").rows, row_id)
    return make_plan(row, load_lock(root / "locks", row), inputs(**changes), missing)


def compare(path: Path, text: str) -> None:
    assert path.read_text() == text, f"{path} differs; if that is meant, write the new text there"


@pytest.mark.parametrize("row_id", ["yolov8-cu128", "yolov12-cu128", "yolov12-fork-cpu"])
def test_plan_record_of_the_real_matrix(root: Path, row_id: str) -> None:
    record = plan(root, row_id).record
    # The build key is the hash of all the rest: it would make every lock change a golden change.
    text = record.model_dump_json(indent=2, exclude={"build_key", "packages"}) + "\n"
    lock_label = record.labels["org.yolo-images.lock"]
    compare(GOLDEN / f"plan-{row_id}.json", text.replace(lock_label, "(hash of the lock)"))


def test_bake_file_of_the_quickstart_rows(root: Path) -> None:
    plans = [plan(root, row_id, MISSING) for row_id in ("yolov8-cu128", "yolov12-cu128")]
    definition = bake_definition(plans, Folders(root).layout())
    text = json.dumps(definition, indent=2) + "\n"
    for one in plans:
        text = text.replace(one.record.labels["org.yolo-images.lock"], "(hash of the lock)")
    compare(GOLDEN / "bake-quickstart.json", text)


def test_a_step_without_packages_is_left_out(root: Path) -> None:
    """An empty layer is there in one build and not in the next."""

    def args(target: str, *missing: Missing) -> dict[str, str]:
        plans = [plan(root, "yolov12-cu128", missing), plan(root, "yolov8-cu128", missing)]
        targets: Any = bake_definition(plans, Folders(root).layout())["target"]
        found: dict[str, str] = targets[target]["args"]
        return found

    assert args("stack-cu128")["TENSORRT"] == "tensorrt"
    assert args("stack-cu128", *MISSING)["TENSORRT"] == "torch"
    assert args("stack-cu128")["CUDA"] == "cuda"
    assert args("yolov12-cu128")["FLASH_ATTN"] == "flash-attn"
    assert args("yolov12-cu128", *MISSING)["FLASH_ATTN"] == "stack"
    assert "FLASH_ATTN" not in args("yolov8-cu128")


def test_same_arguments_same_bytes(root: Path) -> None:
    first, second = plan(root, "yolov12-cu128"), plan(root, "yolov12-cu128")
    assert first == second
    assert first.record.model_dump_json() == second.record.model_dump_json()


def test_a_partial_plan_leaves_parts_out_and_says_so(root: Path) -> None:
    whole, partial = plan(root, "yolov12-cu128"), plan(root, "yolov12-cu128", MISSING)
    assert whole.record.reference == "yolo-images/yolov12-cu128:local"
    assert partial.record.reference == "yolo-images/yolov12-cu128:local-partial"
    assert partial.record.labels["org.yolo-images.missing"] == "tensorrt,flash-attn,weights"
    gone = set(whole.record.packages) - set(partial.record.packages)
    assert gone == {
        "einops",
        "flash-attn",
        "tensorrt-cu12",
        "tensorrt-cu12-bindings",
        "tensorrt-cu12-libs",
    }
    assert partial.requirements["tensorrt"] == partial.requirements["flash-attn"] == ""
    assert partial.random_weights == ("yolo12n.yaml", "yolo12s.yaml")
    assert [weight.file for weight in partial.record.weights] == [
        "yolo12n-random.pt",
        "yolo12s-random.pt",
    ]
    assert partial.record.tensorrt is None
    assert whole.record.tensorrt == "10.9.0.34"


def test_why_a_source_did_not_answer_does_not_reach_the_image(root: Path) -> None:
    other = tuple(item.model_copy(update={"reason": "timed out"}) for item in MISSING)
    first, second = plan(root, "yolov8-cu128", MISSING), plan(root, "yolov8-cu128", other)
    assert first.image_json == second.image_json
    assert first.record.build_key == second.record.build_key
    assert second.record.missing[0].reason == "timed out"


def test_tensorrt_libraries_come_from_nvidia_by_hash_and_are_not_looked_up(root: Path) -> None:
    """On the package index lies a stub of the same name and version."""
    one = plan(root, "yolov8-cu128")
    (artifact,) = one.artifacts
    assert artifact.url is not None
    assert artifact.url.startswith("https://pypi.nvidia.com/tensorrt-cu12-libs/tensorrt_cu12_libs-")
    entries = {e.name: e for e in parse_lock(one.requirements["tensorrt"])}
    libs = entries["tensorrt-cu12-libs"]
    name = artifact.url.rpartition("/")[2]
    assert libs.url == f"file:///run/wheelhouse/{name}"
    assert libs.hashes == ("4a82f0bda2874596f202f6edc8dae99b86a3c4ec2fa142a9c847c4d3a57864a0",)


def test_families_of_a_stack_share_its_steps(root: Path) -> None:
    first, second = plan(root, "yolov8-cu128"), plan(root, "yolov12-cu128")
    for step in ("cuda", "torch", "tensorrt", "deps", "ultralytics"):
        assert first.requirements[step] == second.requirements[step], step
    assert first.requirements["flash-attn"] == ""
    flash = parse_lock(second.requirements["flash-attn"])[-1]
    # A plus sign in a URL's path may be read as a space.
    assert flash.url == (
        "file:///run/wheelhouse/flash_attn-2.8.3%2Bcu12torch2.8cxx11abiTRUE-cp311-cp311-linux_x86_64.whl"
    )


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"revision": "other"}, True),
        ({"source": "https://example.org/fork"}, True),
        ({"base_digest": "sha256:" + "e" * 64}, False),
        ({"base_source": "bootstrap"}, False),
        ({"images": {"base": "x"}}, False),
    ],
)
def test_the_build_key_follows_content_and_nothing_else(
    root: Path, change: dict[str, Any], same: bool
) -> None:
    before = plan(root, "yolov8-cu128").record.build_key
    assert (plan(root, "yolov8-cu128", **change).record.build_key == before) is same


def test_another_familys_dockerfile_does_not_change_the_key(root: Path) -> None:
    images = dict(inputs().images)
    other = plan(root, "yolov8-cu128", images={**images, "yolov12": "edited"})
    own = plan(root, "yolov8-cu128", images={**images, "yolov8": "edited"})
    before = plan(root, "yolov8-cu128").record.build_key
    assert other.record.build_key == before
    assert own.record.build_key != before


def test_an_unresolved_part_stops_a_whole_plan(root: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"locks/yolov12-cu121\.json: flash-attn 2\.7\.3 has no hash yet\n(.|\n)*"
        r"--allow-missing flash-attn",
    ):
        plan(root, "yolov12-cu121")


def test_contexts_are_written_and_stale_weights_removed(root: Path, tmp_path: Path) -> None:
    layout = Folders(tmp_path).layout().under(tmp_path)
    one = plan(root, "yolov8-cu128", MISSING)
    weights = layout.contexts / "yolov8-cu128" / "weights"
    weights.mkdir(parents=True)
    (weights / "old.pt").write_text("stale")
    write_contexts([one], layout)
    assert list(weights.iterdir()) == []
    image = json.loads((layout.contexts / "yolov8-cu128" / "row" / "image.json").read_text())
    assert image["id"] == "yolov8-cu128"
    assert [item["part"] for item in image["missing"]] == ["tensorrt", "flash-attn", "weights"]
    cuda = (layout.requirements("cu128") / "cuda.txt").read_text()
    assert "nvidia-cudnn-cu12==9.10.2.21" in cuda


def test_rows_of_a_stack_that_disagree_are_refused(root: Path, tmp_path: Path) -> None:
    first = plan(root, "yolov8-cu128", MISSING)
    second = plan(root, "yolov12-cu128", MISSING)
    odd = dataclasses.replace(second, requirements={**second.requirements, "cuda": "other\n"})
    with pytest.raises(InvalidInput, match=r"differs from another row of the same stack in cuda"):
        write_contexts([first, odd], Folders(tmp_path).layout().under(tmp_path))


def test_image_hashes_see_names_modes_and_bytes(tmp_path: Path) -> None:
    file = tmp_path / "stack" / "install.py"
    file.parent.mkdir()
    file.write_text("a")
    seen = [hash_images(tmp_path)]
    file.write_text("b")
    seen.append(hash_images(tmp_path))
    file.chmod(0o755)
    seen.append(hash_images(tmp_path))
    file.rename(file.with_name("other.py"))
    seen.append(hash_images(tmp_path))
    assert [list(each) for each in seen] == [["stack/install.py"]] * 3 + [["stack/other.py"]]
    assert len({value for each in seen[:3] for value in each.values()}) == 3
    (file.parent / "__pycache__").mkdir()
    (file.parent / "__pycache__" / "x.pyc").write_text("noise")
    assert hash_images(tmp_path) == seen[-1]
