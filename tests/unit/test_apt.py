from __future__ import annotations

from pathlib import Path

from builder.apt import (
    AptSource,
    for_suite,
    parse_list,
    parse_sources,
    parse_system,
    read_apt_sources,
    redact,
    render_sources,
)

ONE_LINE = """\
# a comment
deb http://mirror.example/debian bookworm main contrib # the archive
deb [arch=amd64,arm64 signed-by=/etc/a.gpg] https://u:secret@m.example/d bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb [trusted=yes] file:/srv/repo ./
"""

DEB822 = """\
Types: deb deb-src
# http://snapshot.example/20250520
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/old
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://mirror.example/src
Suites: bookworm
Components: main

types: deb
uris: http://vendor.example/apt
suites: stable
components: main
X-Unknown: value
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_one_line_format() -> None:
    first, second, third = parse_list(ONE_LINE)
    assert first == AptSource(
        uris=("http://mirror.example/debian",),
        suites=("bookworm",),
        components=("main", "contrib"),
    )
    assert second.fields == (
        ("Architectures", "amd64 arm64"),
        ("Signed-By", "/etc/a.gpg"),
    )
    assert third.suites == ("./",)
    assert third.components == ()


def test_deb822_format_drops_disabled_and_source_entries() -> None:
    archive, vendor = parse_sources(DEB822)
    assert archive.suites == ("bookworm", "bookworm-updates")
    assert dict(archive.fields)["Signed-By"].endswith("debian-archive-keyring.gpg")
    assert vendor.uris == ("http://vendor.example/apt",)
    assert dict(vendor.fields)["Signed-By"].splitlines()[-1].strip().startswith("-----END")


def test_rendered_entries_read_back_equal() -> None:
    entries = parse_list(ONE_LINE) + parse_sources(DEB822)
    text = render_sources(entries)
    assert text.startswith("Types: deb\n")
    assert parse_sources(text) == entries


def test_folder_is_read_like_apt_reads_it(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    (parts / "b.sources").write_text(DEB822)
    (parts / "c.list.disabled").write_text("deb http://c.example/debian bookworm main\n")
    uris = [uri for entry in read_apt_sources(tmp_path) for uri in entry.uris]
    assert uris == [
        "http://a.example/debian",
        "http://mirror.example/debian",
        "http://vendor.example/apt",
    ]


def test_another_suite_is_derived_from_the_archive_entries_only() -> None:
    backports = parse_list("deb http://mirror.example/debian bookworm-backports main\n")
    entries = parse_list(ONE_LINE) + parse_sources(DEB822) + backports
    derived = for_suite(entries, "bookworm", "trixie")
    assert [entry.suites for entry in derived] == [
        ("trixie",),
        ("trixie-security",),
        ("trixie", "trixie-updates"),
    ]
    assert {entry.components for entry in derived} == {("main",)}


def test_repr_of_a_source_hides_credentials() -> None:
    assert "secret" not in repr(parse_list(ONE_LINE))


def test_os_release() -> None:
    system = parse_system('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    assert (system.id, system.version, system.codename) == ("debian", "12", "bookworm")
    assert parse_system("NAME=x\n").id == ""


def test_passwords_with_an_at_sign_are_not_shown_in_part() -> None:
    assert redact("see http://u:p@ss@proxy:1/x and https://h/a") == (
        "see http://***@proxy:1/x and https://h/a"
    )
