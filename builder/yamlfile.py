"""YAML with positions: plain data, and for each node the line and column where it stands.

Only what a configuration file needs: no tags, anchors, aliases or merge keys (an alias bomb is a
few lines long), no duplicate keys, bounded size and depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from builder.errors import Finding, InvalidInput

__all__ = ["Document", "KeyPath", "load_yaml"]

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
# libyaml parses about ten times faster; PyYAML's wheels bring it, a source build may not.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """`data` as plain Python; `keys` and `values` hold 1-based (line, column) per path.

    `raw` keeps the text of each scalar as it was written: YAML has turned `3.10` into 3.1 by the
    time anyone sees the value.
    """

    name: str
    data: object
    keys: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    values: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    raw: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath, *, key: bool = False) -> str:
        """`matrix.yaml:14:18` for the value (or the key) at `path`, or for its nearest parent."""
        tables = (self.keys, self.values) if key else (self.values, self.keys)
        for length in range(len(path), -1, -1):
            for table in tables:
                if (found := table.get(path[:length])) is not None:
                    return f"{self.name}:{found[0]}:{found[1]}"
        return self.name


def load_yaml(text: str, name: str) -> Document:
    """Parse `text`; every structural fault is an InvalidInput with line and column."""
    if len(text.encode()) > MAX_BYTES:
        raise InvalidInput(
            Finding(
                place=name,
                what=f"the file is larger than {MAX_BYTES} bytes",
                todo="A matrix of a thousand rows needs a tenth of that. Is it the right file?",
            )
        )
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise InvalidInput(_syntax_finding(error, name)) from error
    except yaml.YAMLError as error:
        raise InvalidInput(Finding(place=name, what=f"not YAML: {error}")) from error
    except RecursionError as error:
        raise InvalidInput(Finding(place=name, what="nested too deeply")) from error
    document = Document(name, None)
    if root is None:
        return document
    reader = _Reader(document, text)
    data = reader.convert(root, ())
    if reader.findings:
        raise InvalidInput(*reader.findings)
    return Document(name, data, document.keys, document.values, document.raw)


def _syntax_finding(error: yaml.MarkedYAMLError, name: str) -> Finding:
    mark = error.problem_mark or error.context_mark
    place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = error.problem or "not YAML"
    return Finding(place=place, what=problem, why=(error.context or "").capitalize())


class _Reader:
    def __init__(self, document: Document, text: str) -> None:
        self.document = document
        self.findings: list[Finding] = []
        self._seen: set[int] = set()
        self._constructor = yaml.SafeLoader("")
        for what, mark in _forbidden(text):
            self._report(mark, what, todo="Write the value out.")

    def convert(self, node: yaml.Node, path: KeyPath) -> object:
        """Return the plain data of `node` and note its position under `path`."""
        mark = node.start_mark
        self.document.values[path] = (mark.line + 1, mark.column + 1)
        if len(path) > MAX_DEPTH:
            self._report(mark, f"nested deeper than {MAX_DEPTH} levels")
            return None
        if id(node) in self._seen:
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(mark, "a key must be a plain word")
                continue
            key = str(key_node.value)
            child: KeyPath = (*path, key)
            if key in result:
                first = self.document.keys[child][0]
                self._report(
                    mark, f"{key!r} is given twice (first on line {first})", todo="Keep one."
                )
                continue
            self.document.keys[child] = (mark.line + 1, mark.column + 1)
            result[key] = self.convert(value_node, child)
        return result

    def _scalar(self, node: yaml.Node, path: KeyPath) -> object:
        self.document.raw[path] = str(node.value)
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._report(node.start_mark, f"unreadable value {node.value!r}: {error}")
            return None

    def _report(self, mark: yaml.Mark, what: str, *, todo: str = "") -> None:
        place = f"{self.document.name}:{mark.line + 1}:{mark.column + 1}"
        self.findings.append(Finding(place=place, what=what, todo=todo))


def _forbidden(text: str) -> Iterator[tuple[str, yaml.Mark]]:
    for token in yaml.scan(text, Loader=_Loader):
        if isinstance(token, yaml.AliasToken):
            yield "aliases (*name) are not allowed", token.start_mark
        elif isinstance(token, yaml.AnchorToken):
            yield "anchors (&name) are not allowed", token.start_mark
        elif isinstance(token, yaml.TagToken):
            yield "tags (!name) are not allowed", token.start_mark
