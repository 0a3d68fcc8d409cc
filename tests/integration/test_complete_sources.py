"""The same rows where a source is busy, gone, wrong, or reached by a company's proxy only."""

from __future__ import annotations

from pathlib import Path

from builder.errors import BuildFailed, SourceUnreachable
from tests.integration import leaks
from tests.integration.complete import matrix_text
from tests.integration.whole import ANY, LOGINS, Whole, make_whole, played, secrets
from tests.integration.whole import WHOLE_ROWS as ROWS
from tests.servers.certificates import Certificate
from tests.servers.faults import Cut, Fault, Flip, Say

OFFICIAL = {
    f"YOLO_SOURCES_{key}": "" for key in ("NVIDIA", "PYTORCH", "GITHUB", "WEIGHTS", "WHEELS")
}


def test_official_addresses_through_a_proxy_give_the_same_image(
    elsewhere: Whole, whole: Whole, bridge: str, certificate: Certificate, setuptools_wheel: Path
) -> None:
    """No mirrors, but a proxy that wants a password, shows its own certificate and breaks off."""
    row = ROWS[0]
    with played(bridge, certificate, setuptools_wheel, nvidia="") as proxy:
        proxy.faults += [
            Fault(path="*/tensorrt_cu12_libs*.whl", what=Cut(100)),
            Fault(path="/signed/flash_attn*", what=Say(503)),
        ]
        login = proxy.url_with(LOGINS["proxy"])
        proxies = {"YOLO_SOURCES_PROXIES_HTTP": login, "YOLO_SOURCES_PROXIES_HTTPS": login}
        index = {"YOLO_SOURCES_INDEX": proxy.url_with(LOGINS["index"]) + "/simple/"}
        done = elsewhere.run(
            "build", row, "--base", "bootstrap", **{**OFFICIAL, **proxies, **index}
        )
        assert done.returncode == 0, done.stderr
        hosts = {seen.path for seen in proxy.requests(method="CONNECT")}
        assert hosts == {"github.com:443", "pypi.nvidia.com:443"}
        # A busy answer to the first question is not a host that can't be reached.
        assert len(proxy.requests("/signed/flash_attn*")) == 3
        parts = [seen.range for seen in proxy.requests("*/tensorrt_cu12_libs*.whl")]
        assert parts == [None, "bytes=100-"]
    assert elsewhere.record(row).digest == whole.record(row).digest
    assert leaks.in_folder(elsewhere.folders.out, secrets(whole, certificate)) == []
    assert not any(word in "".join(elsewhere.said) for word in LOGINS.values())


def test_a_source_that_does_not_answer_is_named_before_anything_is_built(
    elsewhere: Whole, whole: Whole
) -> None:
    faults = [
        Fault(path=path, what=Say(503), times=None, methods=ANY)
        for path in ("/nvidia/*", "/tensorrt-cu12-libs/*", "/signed/own-yolo12n*")
    ]
    whole.play.faults += faults
    try:
        done = elsewhere.run("build", ROWS[0], "--base", "bootstrap")
    finally:
        whole.play.faults.clear()
    assert done.returncode == SourceUnreachable.exit_code
    assert "step tensorrt: https://pypi.nvidia.com/tensorrt-cu12-libs/" in done.stderr
    assert "step weights: https://github.com/example/checkpoints" in done.stderr
    assert "step flash-attn" not in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""
    assert not elsewhere.folders.row(ROWS[0]).exists()


def test_a_file_with_another_hash_than_the_lock_is_refused_everywhere(
    elsewhere: Whole, whole: Whole
) -> None:
    """The mirror and the official address are asked once each, and neither is believed."""
    whole.play.seen.clear()
    whole.play.faults.append(Fault(path="/signed/flash_attn*", what=Flip(200), times=None))
    try:
        done = elsewhere.run("build", ROWS[0], "--base", "bootstrap")
    finally:
        whole.play.faults.clear()
    assert done.returncode == SourceUnreachable.exit_code
    assert done.stderr.count("its sha256 is ") == 2
    assert "hunter2" not in done.stderr
    downloads = whole.play.requests("/signed/flash_attn*")
    assert len([seen for seen in downloads if seen.range != "bytes=0-0"]) == 2
    assert not list(elsewhere.folders.files.rglob("flash_attn*.whl"))


def test_a_file_with_another_hash_than_public_locks_know_is_refused(
    root: Path, tmp_path: Path, whole: Whole, certificate: Certificate
) -> None:
    """The index serves 2.8.3 of flash-attn, whose hash everybody knows, with other bytes."""
    made = make_whole(root, tmp_path, whole.play, certificate)
    made.folders.matrix.write_text(matrix_text(flash_attn="2.8.3"))
    done = made.run("lock", ROWS[0])
    assert done.returncode == 0, done.stderr
    (flash,) = (item for item in made.lock(ROWS[0]).artifacts if item.name == "flash-attn")
    assert flash.status in {"single", "verified"}
    done = made.run("build", ROWS[0], "--base", "bootstrap")
    assert done.returncode == SourceUnreachable.exit_code
    # The mirror and the official address: the size says already that neither has the file.
    assert done.stderr.count(f"instead of {flash.size}") == 2


def test_a_failing_installation_tells_no_secret(
    elsewhere: Whole, whole: Whole, certificate: Certificate
) -> None:
    """What the installer says about an address that does not answer ends in the log."""
    row = "yolov8-wholecpu"
    whole.play.faults.append(Fault(path="/files/matplotlib*", what=Say(404), times=None))
    try:
        done = elsewhere.run("build", row, "--base", "bootstrap", "--no-cache")
    finally:
        whole.play.faults.clear()
    assert done.returncode == BuildFailed.exit_code
    log = (elsewhere.folders.row(row) / "build.log").read_text()
    assert "matplotlib" in log
    words = secrets(whole, certificate)
    assert leaks.in_folder(elsewhere.folders.root, words) == []
    assert [word for word in words if word in (done.stdout + done.stderr).encode()] == []
