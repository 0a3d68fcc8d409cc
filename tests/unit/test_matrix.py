from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import InvalidInput, NothingSelected
from builder.matrix import load_matrix, parse_matrix, select


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "matrix.yaml").read_text()


def test_the_real_matrix_has_these_rows(root: Path) -> None:
    ids = [row.id for row in load_matrix(root / "matrix.yaml").rows]
    stacks = ["cu121", "cu126", "cu128", "cu130", "cpu"]
    families = ["yolov8", "yolov12", "yolov12-fork"]
    expected = [f"{family}-{stack}" for stack in stacks for family in families]
    expected.remove("yolov12-fork-cu130")
    assert ids == expected


def test_a_row_joins_stack_family_and_distribution(root: Path) -> None:
    (row,) = select(load_matrix(root / "matrix.yaml").rows, "yolov12-cu128")
    assert (row.family, row.image, row.distribution) == ("yolov12", "yolov12", "ultralytics")
    assert (row.stack.torch, row.stack.cuda, row.stack.python) == ("2.8.0", "12.8", "3.11")
    assert row.stack.tensorrt is not None
    assert (row.stack.tensorrt.package, row.stack.tensorrt.version) == (
        "tensorrt-cu12",
        "10.9.0.34",
    )
    assert row.flash_attn is not None
    assert row.flash_attn.version == "2.8.3"
    assert [weight.name for weight in row.weights] == ["yolo12n.pt", "yolo12s.pt"]


def test_flash_attn_needs_both_the_family_and_the_stack(root: Path) -> None:
    rows = {row.id: row for row in load_matrix(root / "matrix.yaml").rows}
    assert rows["yolov8-cu128"].flash_attn is None
    assert rows["yolov12-cu130"].flash_attn is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'python: "3.11"',
            "python: 3.10",
            (
                r"^matrix\.yaml:12:13: stacks\.cu121\.python: 3\.1 is a number, not a version\n"
                r'    YAML reads 3\.10 as 3\.1\. Quote it: python: "3\.10"$'
            ),
        ),
        (
            'torchvision: "0.18.0"',
            'torchvison: "0.18.0"',
            (
                r"matrix\.yaml:10:3: stacks\.cu121\.torchvision is missing(.|\n)*"
                r"matrix\.yaml:15:5: stacks\.cu121\.torchvison: unknown key\n"
                r"    Perhaps you meant 'torchvision'\?"
            ),
        ),
        ('torch: "2.3.0"', 'torch: "two"', r"matrix\.yaml:14:12: .*'two' is not a version"),
        ("suite: bookworm", "suite: buster", r"matrix\.yaml:11:12: .*'bookworm' or 'trixie'"),
        (
            "tensorrt-cu12==10.9.0.34",
            "tensorrt-cu12>=10",
            r"'tensorrt-cu12>=10' does not name one version: write name==version",
        ),
        (
            "[yolov8n.pt, yolov8s.pt]",
            "[yolov8n.pt, yolov8n.pt, yolo8s.pt]",
            (
                r"unknown checkpoint 'yolo8s\.pt'\n    Perhaps you meant 'yolov8s\.pt'\?(.|\n)*"
                r"'yolov8n\.pt' is given twice"
            ),
        ),
        (
            "distribution: ultralytics",
            "distribution: ultralitics",
            r"unknown distribution 'ultralitics'\n    Perhaps you meant 'ultralytics'\?",
        ),
        (
            "row: yolov12-fork-cu130",
            "row: yolov12-frk-*",
            (
                r"^matrix\.yaml:144:10: 'yolov12-frk-\*' matches no row\n"
                r"    Perhaps you meant 'yolov12-fork-cpu'\? Rows before exclusion: yolov8-cu121, "
            ),
        ),
        ("sha256: f59b3d", "sha256: F59B3D", r"weights\.yolov8n\.pt\.sha256: string should match"),
        ('version: "1"', 'version: "2"', r"matrix\.yaml:4:10: version: input should be '1'"),
    ],
)
def test_faults_name_place_and_remedy(text: str, old: str, new: str, message: str) -> None:
    assert old in text
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_matrix(text.replace(old, new, 1))
    assert caught.value.exit_code == 2


def test_all_faults_come_at_once(text: str) -> None:
    broken = text.replace('python: "3.11"', "python: 3.11").replace("gpus: [T4,", "gpu: [T4,")
    with pytest.raises(InvalidInput) as caught:
        parse_matrix(broken)
    assert len(caught.value.findings) == 8


def test_two_rows_of_the_same_id_are_refused(text: str) -> None:
    twice = text.replace("  cpu:\n", "  fork-cpu:\n", 1).replace("  cu121:\n", "  cpu:\n", 1)
    with pytest.raises(InvalidInput, match=r"two rows get the id 'yolov12-fork-cpu'"):
        parse_matrix(twice)


def test_the_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"matrix\.yaml: no such file"):
        load_matrix(tmp_path / "matrix.yaml")


def test_an_empty_file_is_not_a_matrix() -> None:
    with pytest.raises(InvalidInput, match=r"matrix\.yaml: the file: input should be a valid"):
        parse_matrix("")


def test_select_takes_shell_patterns(root: Path) -> None:
    rows = load_matrix(root / "matrix.yaml").rows
    assert [row.id for row in select(rows, "*-cu128")] == [
        "yolov8-cu128",
        "yolov12-cu128",
        "yolov12-fork-cu128",
    ]


def test_select_of_nothing_is_an_error(root: Path) -> None:
    rows = load_matrix(root / "matrix.yaml").rows
    with pytest.raises(NothingSelected, match=r"no row matches 'yolov8-cu182'\n    Perhaps you me"):
        select(rows, "yolov8-cu182")
