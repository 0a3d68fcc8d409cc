from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import InvalidInput
from builder.matrix import parse_matrix
from builder.matrix_model import SourcesModel
from builder.source_settings import overlay
from builder.sources import Proxies, Sources, with_settings


def test_a_variable_wins_over_the_file_and_the_rest_stays() -> None:
    written = SourcesModel.model_validate(
        {"index": "https://file.example/simple", "nvidia": ["https://a.example"]}
    )
    found = overlay(
        written,
        {
            "YOLO_SOURCES_NVIDIA": "https://b.example, https://c.example",
            "YOLO_SOURCES_PROXIES_HTTPS": "http://proxy.example:3128",
            "YOLO_SOURCES_PROXIES_NO": "localhost .corp.example",
            "HOME": "/root",
        },
    )
    assert found.index == "https://file.example/simple"
    assert found.nvidia == ["https://b.example", "https://c.example"]
    assert found.proxies.https == "http://proxy.example:3128"
    assert found.proxies.no == ["localhost", ".corp.example"]


def test_an_empty_variable_takes_away_what_the_file_says() -> None:
    written = SourcesModel.model_validate({"index": "https://file.example/simple"})
    assert overlay(written, {"YOLO_SOURCES_INDEX": ""}).index is None


def test_faults_of_variables_are_named_all_at_once_and_without_passwords() -> None:
    environment = {
        "YOLO_SOURCES_GITHUB": "https://good.example ftp://u:secret@bad.example",
        "YOLO_SOURCES_APT": "u:secret@mirror.example/debian",
    }
    with pytest.raises(InvalidInput) as caught:
        overlay(SourcesModel(), environment)
    text = str(caught.value)
    assert "YOLO_SOURCES_GITHUB: the value 2 in the list is not a URL" in text
    assert "YOLO_SOURCES_APT: the value is not a URL" in text
    assert "secret" not in text


def test_an_unknown_variable_is_an_error_and_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"YOLO_SOURCES_NVIDA: unknown variable\n.*SOURCES_NV"):
        overlay(SourcesModel(), {"YOLO_SOURCES_NVIDA": "https://a.example"})


def test_settings_stand_in_the_place_of_the_machines(tmp_path: Path) -> None:
    machine = Sources(
        default_index="https://machine.example/simple",
        find_links=("/srv/wheels",),
        proxies=Proxies(http="http://old:1", https="http://old:1", no=("a",)),
    )
    ca = tmp_path / "ca.pem"
    ca.write_text("certificate")
    settings = SourcesModel.model_validate(
        {
            "wheelhouse": str(tmp_path),
            "ca": str(ca),
            "proxies": {"https": "http://new:2"},
            "apt": "http://mirror.example/debian",
            "apt_security": "http://mirror.example/security",
            "weights": ["https://w.example"],
        }
    )
    found = with_settings(machine, settings)
    assert found.default_index == "https://machine.example/simple"
    assert found.find_links == (str(tmp_path), "/srv/wheels")
    assert found.proxies == Proxies(http="http://old:1", https="http://new:2", no=("a",))
    assert found.ca_bundle == ca
    assert found.mirrors.weights == ("https://w.example",)
    main, security = found.apt_for("trixie")
    assert (main.uris, main.suites) == (
        ("http://mirror.example/debian",),
        ("trixie", "trixie-updates"),
    )
    assert security.suites == ("trixie-security",)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ca", r"sources\.ca: .*nothing: no such file"),
        ("wheelhouse", r"sources\.wheelhouse: .*nothing: no such folder"),
    ],
)
def test_paths_that_lead_nowhere_are_named(tmp_path: Path, key: str, message: str) -> None:
    settings = SourcesModel.model_validate({key: str(tmp_path / "nothing")})
    with pytest.raises(InvalidInput, match=message):
        with_settings(Sources(), settings)


def test_the_block_of_the_matrix_is_read_and_its_faults_have_a_place(root: Path) -> None:
    text = (root / "matrix.yaml").read_text()
    assert "\nsources: {}\n" in text
    matrix = parse_matrix(
        text.replace("sources: {}", "sources:\n  nvidia: [https://mirror.example/nvidia]")
    )
    assert matrix.sources.nvidia == ["https://mirror.example/nvidia"]
    with pytest.raises(InvalidInput, match=r"matrix\.yaml:\d+:\d+: sources\.nvidia\.0: "):
        parse_matrix(text.replace("sources: {}", "sources:\n  nvidia: [mirror.example]"))
