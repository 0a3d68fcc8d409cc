from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
import uv
from hypothesis import given
from hypothesis import strategies as st

from builder.apt import System, parse_list
from builder.sources import Proxies, Sources, make_sources, parse_apt_config, parse_pip_config

DEBIAN = System(id="debian", version="12", codename="bookworm")

PIP = """\
:env:.cert='/etc/ca.pem'
:env:.find-links='/srv/wheels'
global.extra-index-url='file:///srv/simple https://u:secret@extra.example/simple'
global.find-links='/other'
global.index-url='https://mirror.example/simple'
global.trusted-host='mirror.example'
install.index-url='https://install.example/simple'
freeze.timeout='10'
"""


def test_pip_settings_are_layered_as_pip_layers_them() -> None:
    settings = parse_pip_config(PIP)
    assert settings["index-url"] == "https://install.example/simple"
    assert settings["find-links"] == "/srv/wheels"
    assert "timeout" not in settings


def test_pip_settings_become_sources() -> None:
    sources = make_sources({}, parse_pip_config(PIP), system=DEBIAN)
    assert sources.default_index == "https://install.example/simple"
    assert sources.extra_indexes == (
        "file:///srv/simple",
        "https://u:secret@extra.example/simple",
    )
    assert sources.find_links == ("/srv/wheels",)
    assert sources.insecure_hosts == ("mirror.example",)


def test_variables_of_uv_win_over_pip() -> None:
    environment = {
        "UV_DEFAULT_INDEX": "https://uv.example/simple",
        "UV_INDEX": "torch=https://torch.example/whl https://more.example/simple",
    }
    sources = make_sources(environment, parse_pip_config(PIP), system=DEBIAN)
    assert sources.default_index == "https://uv.example/simple"
    assert sources.extra_indexes == (
        "https://torch.example/whl",
        "https://more.example/simple",
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"HTTP_PROXY": "http://up:1", "http_proxy": "http://low:1"},
            Proxies(http="http://low:1"),
        ),
        (
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "localhost, .example,"},
            Proxies(https="http://p:1", no=("localhost", ".example")),
        ),
        ({"ALL_PROXY": "http://p:1"}, Proxies(http="http://p:1", https="http://p:1")),
        ({}, Proxies()),
    ],
)
def test_proxies(environment: dict[str, str], expected: Proxies) -> None:
    proxies = make_sources(environment, {}, system=DEBIAN).proxies
    assert (proxies.http, proxies.https, proxies.no) == (
        expected.http,
        expected.https,
        expected.no,
    )


def test_ca_bundle_that_exists_is_taken(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("pem")
    environment = {"SSL_CERT_FILE": "/nowhere.pem", "REQUESTS_CA_BUNDLE": str(bundle)}
    assert make_sources(environment, {}, system=DEBIAN).ca_bundle == bundle


def test_uv_toml_is_valid_for_the_locked_uv(tmp_path: Path) -> None:
    sources = Sources(
        default_index="https://u:secret@mirror.example/simple",
        extra_indexes=("https://extra.example/simple", "file:///srv/simple"),
        insecure_hosts=("mirror.example",),
        proxies=Proxies(http="http://p:1", https="http://p:2", no=("localhost",)),
    )
    path = tmp_path / "uv.toml"
    path.write_text(sources.uv_toml())
    done = subprocess.run(
        [uv.find_uv_bin(), "--config-file", str(path), "--offline", "cache", "dir"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "file:" not in path.read_text()
    assert 'no-proxy = ["localhost"]' in path.read_text()


def test_a_local_default_index_means_no_index_in_a_build() -> None:
    assert "no-index = true" in Sources(default_index="file:///srv/simple").uv_toml()


def test_locking_sees_remote_indexes_only() -> None:
    sources = Sources(extra_indexes=("file:///srv/simple", "https://extra.example/simple"))
    environment = sources.uv_environment()
    assert environment["UV_INDEX"] == "https://extra.example/simple"
    assert "UV_DEFAULT_INDEX" not in environment


def test_nothing_is_said_about_what_this_machine_does_not_set() -> None:
    assert Sources().uv_environment() == {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    assert Sources().uv_toml() == 'index-strategy = "unsafe-best-match"\n'


@given(st.text(st.characters(categories=["L", "N"]), min_size=6))
def test_repr_and_str_hide_passwords(password: str) -> None:
    url = f"https://somebody:{password}@host.example/simple"
    sources = Sources(
        default_index=url,
        extra_indexes=(url,),
        find_links=(url,),
        proxies=Proxies(http=url, https=url, no=("a",)),
        apt=parse_list(f"deb {url} bookworm main"),
        apt_settings=f'Acquire::http::Proxy "{url}";\n',
    )
    for text in (repr(sources), str(sources), repr(sources.proxies), repr(sources.apt)):
        assert f":{password}@" not in text


def test_apt_settings_for_a_build() -> None:
    dump = """\
Acquire "";
Acquire::http::Proxy "http://p:3142";
Acquire::https::CaInfo "/etc/corp.pem";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Sandbox::User "root";
"""
    assert parse_apt_config(dump) == (
        'Acquire::http::Proxy "http://p:3142";\nAcquire::Check-Valid-Until "false";\n'
    )


def test_secrets_are_complete_and_private(tmp_path: Path) -> None:
    sources = Sources(system=DEBIAN, apt=parse_list("deb http://m.example/debian bookworm main"))
    folder = tmp_path / "secrets"
    sources.write_secrets(folder, ["trixie"])
    assert sorted(path.name for path in folder.iterdir()) == ["apt-conf", "apt-sources", "ca", "uv"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
    text = (folder / "apt-sources").read_text()
    assert "Suites: trixie\n" in text
    assert (folder / "ca").read_text() == ""


def test_a_machine_that_is_not_debian_has_no_debian_sources() -> None:
    ubuntu = System(id="ubuntu", version="24.04", codename="noble")
    sources = Sources(system=ubuntu, apt=parse_list("deb http://m.example/ubuntu noble main"))
    assert sources.apt_for("bookworm") == ()


def test_apt_gets_our_proxies_where_it_says_nothing_itself() -> None:
    proxies = Proxies(http="p:1", https="http://p:2", no=("localhost", ".corp.example"))
    silent = Sources(proxies=proxies)
    assert silent.apt_conf().splitlines() == [
        'Acquire::http::Proxy "http://p:1";',
        'Acquire::http::Proxy::localhost "DIRECT";',
        'Acquire::http::Proxy::corp.example "DIRECT";',
        'Acquire::https::Proxy "http://p:2";',
        'Acquire::https::Proxy::localhost "DIRECT";',
        'Acquire::https::Proxy::corp.example "DIRECT";',
    ]
    own = 'Acquire::http::Proxy "http://own:3";\n'
    assert Sources(apt_settings=own).apt_conf() == own
    assert "p:1" not in Sources(proxies=proxies, apt_settings=own).apt_conf()
