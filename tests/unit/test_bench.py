"""The pure parts of the benchmark: statistics, verdicts, tables, and what is read and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench.__main__ import main
from bench.baseline import pip_conf, unordered
from bench.disk import free_bytes, kind_of_disk, occupied
from bench.figures import Figure, Verdict, judge, show, summarize
from bench.lab import bridge_settings, mounts_below
from bench.project import Project, only_rows, with_version
from bench.records import FigureRecord, Machine, ScenarioRecord, read_all
from bench.registry import Pushed, read_blobs, read_pushed
from bench.runner import Runner, all_met, choose, require_disk
from bench.scenario import NotMeasured, Scenario
from bench.scenarios import SCENARIOS
from bench.scenarios.changes import older_versions
from bench.table import render
from bench.workbench import Workbench
from builder.errors import BuildFailed, Finding, InvalidInput, NothingSelected
from builder.matrix import load_matrix
from builder.records import write_record
from builder.sources import Proxies, Sources
from builder.talk import Talk

MACHINE = Machine(
    cpu="A CPU",
    cores=2,
    memory_bytes=25_000_000_000,
    kernel="6.1",
    disk="ssd, ext4",
    engine="26.1.5",
    buildx="0.13.1",
    revision="0123456789abcdef",
)


def figure(*values: float, at_most: float | None = None, name: str = "seconds") -> FigureRecord:
    return FigureRecord(name=name, title="a figure", unit="s", at_most=at_most, values=values)


def record(*figures: FigureRecord, scenario: str = "cold", reason: str = "") -> ScenarioRecord:
    return ScenarioRecord(
        scenario=scenario,
        title="A scenario",
        runs=3,
        started="2026-11-25T10:00:00+00:00",
        machine=MACHINE,
        figures=figures,
        reason=reason,
        notes=("two rows",) if figures and not reason else (),
    )


def test_a_list_of_values_comes_to_its_median_and_extremes() -> None:
    summary = summarize([3.0, 1.0, 10.0])
    assert summary is not None
    assert (summary.median, summary.smallest, summary.largest, summary.n) == (3.0, 1.0, 10.0, 3)
    assert summarize([]) is None


@pytest.mark.parametrize(
    ("values", "at_most", "expected"),
    [
        ([1.0, 1.1, 9.0], 1.1, Verdict.MET),
        ([1.0, 1.2, 1.3], 1.1, Verdict.MISSED),
        ([0.0], 0.0, Verdict.MET),
        ([5.0], None, Verdict.REPORTED),
        ([], 1.1, Verdict.NOT_MEASURED),
        ([], None, Verdict.NOT_MEASURED),
    ],
)
def test_the_median_is_judged(
    values: list[float], at_most: float | None, expected: Verdict
) -> None:
    assert judge(values, at_most) is expected


def test_values_are_written_for_people() -> None:
    assert show(1.234, "s") == "1.23 s"
    assert show(125, "s") == "2 min 5 s"
    assert show(3_858_273_396, "B") == "3.86 GB"
    assert show(4_321_000, "B") == "4.3 MB"
    assert show(0.5849, "ratio") == "0.585"
    assert show(12, "rows") == "12"


def test_a_target_that_was_not_measured_is_not_met() -> None:
    assert all_met([record(figure(1.0, at_most=2.0), figure(9.0))])
    assert not all_met([record(figure(3.0, at_most=2.0))])
    assert not all_met([record(figure(at_most=2.0))])


def test_the_table_names_value_spread_count_target_and_verdict() -> None:
    text = render(
        [
            record(figure(1.0, 2.0, 3.0, at_most=2.5)),
            record(figure(at_most=2.0), scenario="bump", reason="no root |\n here"),
        ]
    )
    assert "| cold | a figure | 2.00 s | 1.00 s - 3.00 s | 3 | <= 2.50 s | met |" in text
    assert "| bump | a figure |  |  | 0 | <= 2.00 s | not measured: no root \\| here |" in text
    assert "- cold: two rows" in text
    assert text.count("A CPU, 2 cores, 25.0 GB of memory") == 1
    assert "(cold, bump)" in text


def test_records_survive_the_disk(tmp_path: Path) -> None:
    written = record(figure(1.0, at_most=2.0))
    write_record(tmp_path / "cold.json", written)
    assert read_all(tmp_path) == [written]


def blob(storage: Path, digest: str, text: str) -> None:
    path = storage / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def image(storage: Path, tag: str, manifest: str, *layers: str) -> None:
    document = {"layers": [{"digest": f"sha256:{layer}"} for layer in layers]}
    blob(storage, manifest, json.dumps(document))
    link = storage / "docker/registry/v2/repositories/yolo/a/_manifests/tags" / tag / "current/link"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.write_text(f"sha256:{manifest}")


def test_a_push_is_what_the_storage_has_more_than_before(tmp_path: Path) -> None:
    blob(tmp_path, "ba5e", "b" * 100)
    blob(tmp_path, "1a1a", "l" * 1000)
    image(tmp_path, "one", "aaaa", "ba5e", "1a1a")
    before = read_blobs(tmp_path)
    assert before["sha256:1a1a"] == 1000
    blob(tmp_path, "ba5f", "b" * 70)
    blob(tmp_path, "c0c0", "{}")
    image(tmp_path, "two", "bbbb", "ba5f", "1a1a")
    manifest = read_blobs(tmp_path)["sha256:bbbb"]
    pushed = read_pushed(tmp_path, "yolo/a", "two", before)
    assert pushed == Pushed(base=70, layers=0, papers=manifest + 2)
    assert pushed.total == 72 + manifest
    assert read_pushed(tmp_path, "yolo/a", "two", read_blobs(tmp_path)).total == 0


def test_an_index_leads_to_its_first_manifest(tmp_path: Path) -> None:
    blob(tmp_path, "1a1a", "l" * 1000)
    image(tmp_path, "one", "aaaa", "1a1a")
    blob(tmp_path, "dddd", json.dumps({"manifests": [{"digest": "sha256:aaaa"}]}))
    link = tmp_path / "docker/registry/v2/repositories/yolo/a/_manifests/tags/one/current/link"
    link.write_text("sha256:dddd")
    assert read_pushed(tmp_path, "yolo/a", "one", {}).base == 1000


def test_older_versions_come_newest_first_without_previews() -> None:
    printed = "ultralytics (9.0)\nAvailable versions: 9.0, 8.4.10, 8.4.9, 8.4.9rc1, 8.4.190, odd!\n"
    assert [*older_versions(printed, "8.4.190")] == ["8.4.10", "8.4.9"]
    assert [*older_versions("ERROR: no match\n", "8.4.190")] == []


def test_the_second_engine_stays_off_the_first_ones_addresses() -> None:
    settings = bridge_settings("docker0", "172.17.0.1/16")
    assert settings["fixed-cidr"] == "172.17.240.0/20"
    assert settings["bridge"] == "docker0"
    assert settings["iptables"] is False
    assert bridge_settings("no-such-bridge") == {}


def test_only_mounts_below_our_folders_are_ours(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text("overlay /data/lab/a overlay rw 0 0\nx /data/lab2 ext4 rw 0 0\nx / e rw 0 0\n")
    assert mounts_below(Path("/data/lab"), table=table) == ["/data/lab/a"]


def test_the_kernel_says_what_kind_of_disk_it_is(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    disk = tmp_path / "sys" / "pci0" / "sda"
    (disk / "queue").mkdir(parents=True)
    (disk / "queue" / "rotational").write_text("0\n")
    (disk / "sda1").mkdir()
    numbers = tmp_path / "dev"
    numbers.mkdir()
    link = numbers / f"{device >> 8 & 0xFFF}:{device & 0xFF}"
    link.symlink_to(disk / "sda1")
    assert kind_of_disk(tmp_path, numbers) == "ssd"
    (disk / "queue" / "rotational").write_text("1\n")
    assert kind_of_disk(tmp_path, numbers) == "hdd"
    assert kind_of_disk(tmp_path, tmp_path / "nothing") == "unknown"


def test_files_take_what_their_blocks_take(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert 100_000 <= occupied(tmp_path) < 200_000


def test_free_space_is_asked_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") > 0


def test_pip_reaches_in_a_build_what_it_reaches_here(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    sources = Sources(
        default_index="https://index.example/simple",
        extra_indexes=("file:///srv/simple", "https://more.example/simple"),
        insecure_hosts=("more.example",),
        proxies=Proxies(https="http://proxy.example:3128"),
        ca_bundle=bundle,
    )
    lines = pip_conf(sources).splitlines()
    assert lines[0] == "[global]"
    assert "index-url = https://index.example/simple" in lines
    assert "extra-index-url = https://more.example/simple" in lines
    assert "trusted-host = more.example" in lines
    assert "proxy = http://proxy.example:3128" in lines
    assert "cert = /run/secrets/ca" in lines
    assert not [line for line in lines if line.startswith("no-index")]
    alone = pip_conf(replace(sources, no_index=True)).splitlines()
    assert "no-index = true" in alone
    assert not [line for line in alone if line.startswith("extra-index-url")]


BAKE = {
    "group": {"default": {"targets": ["a-x", "b-x"]}},
    "target": {
        "base-suite": {"context": "rootfs"},
        "stack-x": {
            "contexts": {"base": "target:base-suite", "requirements": "x/requirements"},
            "args": {"PYTHON": "3.11", "CUDA": "venv"},
        },
        **{
            row: {
                "context": "images",
                "dockerfile": "yolov8/Dockerfile",
                "contexts": {
                    "stack": "target:stack-x",
                    "requirements": f"{row}/requirements",
                    "tools": "tools",
                    "row": f"{row}/row",
                    "weights": f"{row}/weights",
                },
                "args": {"RANDOM_WEIGHTS": ""},
                "tags": [f"yolo-images/{row}:local"],
                "output": ["type=image,compression=zstd"],
            }
            for row in ("a-x", "b-x")
        },
    },
}


def test_unordered_targets_share_nothing_but_the_base() -> None:
    made = unordered(BAKE, "FROM base\nRUN echo ${PYTHON}\n", "wheels")
    assert set(made["target"]) == {"base-suite", "a-x", "b-x"}
    target = made["target"]["a-x"]
    assert "dockerfile" not in target
    assert target["dockerfile-inline"] == "FROM base\nRUN echo $${PYTHON}\n"
    assert target["contexts"]["base"] == "target:base-suite"
    assert target["contexts"]["stack-requirements"] == "x/requirements"
    assert target["contexts"]["row-requirements"] == "a-x/requirements"
    assert target["args"] == {"PYTHON": "3.11", "CUDA": "venv", "RANDOM_WEIGHTS": ""}
    assert target["output"] == ["type=image,compression=zstd"]
    assert target["tags"] == ["yolo-bench/a-x:unordered"]


def test_a_copys_matrix_keeps_the_rows_that_are_measured(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    text = (root / "matrix.yaml").read_text()
    rows = [row.id for row in load_matrix(root / "matrix.yaml").rows]
    path.write_text(only_rows(text, rows, {"yolov8-cu128"}))
    assert [row.id for row in load_matrix(path).rows] == ["yolov8-cu128"]
    path.write_text(with_version(text, "ultralytics", "8.4.1"))
    (row,) = (row for row in load_matrix(path).rows if row.id == "yolov8-cu128")
    assert row.ultralytics == "8.4.1"
    assert yaml.safe_load(path.read_text())["stacks"]["cu128"]["python"] == "3.11"


def small_project(root: Path) -> Project:
    for part in ("builder", "images/runtime/yolo_image", "locks", ".cache/rootfs/suite"):
        (root / part).mkdir(parents=True)
    (root / "build.py").touch()
    (root / "matrix.yaml").touch()
    (root / "images/runtime/yolo_image/__init__.py").write_text("A = 1\n")
    (root / ".cache/rootfs/suite/rootfs.tar").write_bytes(b"\0" * 10240)
    (root / ".cache/rootfs/suite/lock").touch()
    return Project(root, root / "log")


def test_changes_of_a_copy_leave_the_checkout_alone(tmp_path: Path) -> None:
    checkout = small_project(tmp_path / "checkout")
    copy = checkout.copy(tmp_path / "copy")
    tar = Path(".cache/rootfs/suite/rootfs.tar")
    assert (copy.root / tar).samefile(checkout.root / tar)
    assert not (copy.root / ".cache/rootfs/suite/lock").exists()
    copy.change_base("mark")
    copy.change_runtime("mark")
    assert b"mark" in (copy.root / tar).read_bytes()
    assert (checkout.root / tar).read_bytes() == b"\0" * 10240
    code = "images/runtime/yolo_image/__init__.py"
    assert (copy.root / code).read_text() == "A = 1\n# mark\n"
    assert (checkout.root / code).read_text() == "A = 1\n"


def test_an_image_that_was_not_built_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="a-x is not built here"):
        Project(tmp_path, tmp_path / "log").built("a-x")


def test_every_scenario_has_a_name_of_its_own_and_figures() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    for scenario in SCENARIOS:
        figures = [figure.name for figure in scenario.figures]
        assert figures
        assert len(set(figures)) == len(figures)


def test_scenarios_are_chosen_by_name_in_their_own_order() -> None:
    assert [scenario.name for scenario in choose(SCENARIOS, "cold, start")] == ["start", "cold"]
    assert choose(SCENARIOS, None) == SCENARIOS
    with pytest.raises(NothingSelected) as caught:
        choose(SCENARIOS, "cold,colder,coldest")
    assert len(caught.value.findings) == 2


def test_too_small_a_disk_is_refused_for_all_scenarios_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        require_disk(SCENARIOS, Path("/data"), free=10_000_000_000)
    places = {finding.place for finding in caught.value.findings}
    assert places == {"cold", "bump", "runtime", "new-base", "cold-plain", "cold-unordered"}
    require_disk(SCENARIOS, Path("/data"), free=100_000_000_000)


class Calls:
    """Stand-in scenarios that write down in which order they ran."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def scenario(
        self, name: str, error: BaseException | None = None, *, once: bool = False
    ) -> Scenario[Workbench]:
        def measure(bench: Workbench, run: int) -> dict[str, float]:
            self.made.append(f"{name}{run}")
            if error is not None:
                raise error
            bench.note(name, "a note")
            return {"seconds": float(run)}

        figures = (figure_of_seconds(),)
        return Scenario(name=name, title=name, figures=figures, measure=measure, disk=0, once=once)


def figure_of_seconds() -> Figure:
    return Figure(name="seconds", title="seconds", unit="s", at_most=5.0)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr("bench.runner.read_machine", lambda *_: MACHINE)
    bench = Workbench(root=tmp_path, rows=("a-x",), scratch=tmp_path / "scratch", talk=Talk())
    return Runner(bench=bench, out=tmp_path / "out", runs=3)


def test_every_scenario_runs_before_any_runs_again(runner: Runner) -> None:
    calls = Calls()
    records = runner.run([calls.scenario("a"), calls.scenario("b", once=True)])
    assert calls.made == ["a0", "b0", "a1", "a2"]
    assert records[0].figures[0].values == (0.0, 1.0, 2.0)
    assert records[1].figures[0].values == (0.0,)
    assert records[0].notes == ("a note",)
    assert read_all(runner.out) == records
    assert "| a | seconds | 1.00 s |" in (runner.out / "summary.md").read_text()


def test_what_fails_is_told_and_not_tried_again(runner: Runner) -> None:
    calls = Calls()
    failed = BuildFailed(Finding(place="step", what="no space"))
    records = runner.run(
        [
            calls.scenario("a", failed),
            calls.scenario("b", NotMeasured("no root")),
            calls.scenario("c"),
        ]
    )
    assert calls.made == ["a0", "b0", "c0", "c1", "c2"]
    assert [item.reason for item in records] == ["failed: no space", "no root", ""]
    assert runner.errors == [failed]


def test_an_interruption_keeps_what_was_measured(runner: Runner) -> None:
    calls = Calls()
    with pytest.raises(KeyboardInterrupt):
        runner.run([calls.scenario("a"), calls.scenario("b", KeyboardInterrupt())])
    assert [item.scenario for item in read_all(runner.out)] == ["a"]


def test_legs_are_measured_once_per_run(tmp_path: Path) -> None:
    bench = Workbench(root=tmp_path, rows=("a-x",), scratch=tmp_path / "scratch", talk=Talk())
    made = iter(range(10))
    found = [bench.once_per_run("both", run, lambda: next(made)) for run in (0, 0, 1, 0)]
    assert found == [0, 0, 1, 0]


def test_the_command_lists_scenarios_and_their_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [item["scenario"] for item in listed] == [scenario.name for scenario in SCENARIOS]
    cold = next(item for item in listed if item["scenario"] == "cold")
    assert {item["name"]: item["at_most"] for item in cold["figures"]}["both/one"] == 1.1


def test_an_unknown_scenario_has_the_exit_code_of_nothing_selected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "colder"]) == NothingSelected.exit_code
    assert "colder" in capsys.readouterr().err


def test_two_plain_dockerfiles_are_there_for_both_families(root: Path) -> None:
    for family in ("yolov8", "yolov12"):
        text = (root / "bench" / "plain" / family / "Dockerfile").read_text()
        # They pin what the rows pin, and have no hidden advantage: no cache outlives a build.
        assert "type=cache" not in text
        assert all(f"ARG {name}" in text for name in ("TORCH", "TORCHVISION", "ULTRALYTICS"))
