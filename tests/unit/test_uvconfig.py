from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import InvalidInput
from builder.uvconfig import read_uv_config

USER = """
index-url = "https://old.example/simple"
find-links = ["/srv/wheels", "/srv/more"]
allow-insecure-host = ["mirror.example"]

[[index]]
url = "https://mirror.example/simple"
default = true

[[index]]
name = "extra"
url = "https://extra.example/simple"

[[index]]
name = "only-torch"
url = "https://torch.example/whl"
explicit = true
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".config" / "uv").mkdir(parents=True)
    return tmp_path


def test_the_users_file_is_read_in_pips_words(home: Path) -> None:
    (home / ".config" / "uv" / "uv.toml").write_text(USER)
    assert read_uv_config({"HOME": str(home), "XDG_CONFIG_DIRS": str(home / "none")}) == {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://extra.example/simple",
        "find-links": "/srv/wheels /srv/more",
        "trusted-host": "mirror.example",
    }


def test_the_user_wins_over_the_system_key_by_key(home: Path) -> None:
    (home / ".config" / "uv" / "uv.toml").write_text('index-url = "https://user.example"\n')
    (home / "system" / "uv").mkdir(parents=True)
    system = 'index-url = "https://system.example"\nno-index = true\n'
    (home / "system" / "uv" / "uv.toml").write_text(system)
    found = read_uv_config({"HOME": str(home), "XDG_CONFIG_DIRS": str(home / "system")})
    assert found == {"index-url": "https://user.example", "no-index": "true"}


def test_the_section_of_uv_pip_wins_and_a_named_file_stands_alone(home: Path) -> None:
    (home / ".config" / "uv" / "uv.toml").write_text('index-url = "https://user.example"\n')
    named = home / "named.toml"
    named.write_text('find-links = ["/a"]\n[pip]\nindex-url = "https://pip.example"\n')
    environment = {"HOME": str(home), "UV_CONFIG_FILE": str(named)}
    assert read_uv_config(environment) == {
        "index-url": "https://pip.example",
        "find-links": "/a",
    }
    assert read_uv_config({**environment, "UV_NO_CONFIG": "1"}) == {}


def test_a_broken_file_is_named(home: Path) -> None:
    named = home / "named.toml"
    named.write_text("index-url = \n")
    with pytest.raises(InvalidInput, match=r"named\.toml: can't be read: "):
        read_uv_config({"UV_CONFIG_FILE": str(named)})
