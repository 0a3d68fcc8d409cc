from __future__ import annotations

import pytest

from builder.errors import InvalidInput
from builder.yamlfile import MAX_BYTES, load_yaml


def test_positions_are_one_based_and_per_value() -> None:
    document = load_yaml("a:\n  b: [1, x]\n", "m.yaml")
    assert document.data == {"a": {"b": [1, "x"]}}
    assert document.place(("a", "b", 1)) == "m.yaml:2:10"
    assert document.place(("a", "b"), key=True) == "m.yaml:2:3"


def test_place_falls_back_to_the_nearest_parent() -> None:
    document = load_yaml("a:\n  b: 1\n", "m.yaml")
    assert document.place(("a", "missing", "deep")) == "m.yaml:2:3"


def test_raw_keeps_what_was_written() -> None:
    document = load_yaml("python: 3.10\n", "m.yaml")
    assert document.data == {"python": 3.1}
    assert document.raw[("python",)] == "3.10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", r"m\.yaml:2:1: 'a' is given twice \(first on line 1\)"),
        ("a: &x 1\nb: *x\n", r"m\.yaml:1:4: anchors .* not allowed(.|\n)*m\.yaml:2:4: aliases"),
        ("a: !!python/object:os.system 1\n", r"m\.yaml:1:4: tags"),
        ("? [1, 2]\n: x\n", r"m\.yaml:1:3: a key must be a plain word"),
        ("a: [1, 2\nb: 3\n", r"m\.yaml:2:"),
        ("a: 2026-99-99\n", r"m\.yaml:1:4: unreadable value '2026-99-99'"),
        ("a: \x07\n", r"m\.yaml"),
        ("[" * 5000, r"m\.yaml"),
        ("a: " + "[" * 40 + "]" * 40, r"nested deeper than 20 levels"),
        ("#" * (MAX_BYTES + 1), r"m\.yaml: the file is larger than 1000000 bytes"),
    ],
)
def test_faults_are_reported_with_their_place(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_yaml(text, "m.yaml")


def test_an_alias_bomb_is_refused_quickly() -> None:
    levels = [f"l{i}: &l{i} [" + ", ".join([f"*l{i - 1}"] * 9) + "]" for i in range(1, 30)]
    with pytest.raises(InvalidInput, match="aliases"):
        load_yaml("l0: &l0 [x]\n" + "\n".join(levels), "m.yaml")


def test_an_empty_file_has_no_data() -> None:
    assert load_yaml("", "m.yaml").data is None
