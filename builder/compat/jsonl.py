"""Judge combinations from a stream: one JSON object a line in, one answer a line out.

The stream may come from anywhere, so no line can stop the others: one that can't be read is
answered with a finding of the rule `input`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TextIO

from builder.compat.judge import Board
from builder.compat.nearest import nearest_to_board
from builder.compat.verdict import Conflict, Verdict

__all__ = ["LONGEST_LINE", "answer", "run"]

LONGEST_LINE = 1024 * 1024
"""Bytes. A combination takes a few hundred; what is longer is not read into memory whole."""

_REMEMBERED = 20_000
_encode = json.JSONEncoder().encode
_answers: dict[str, str] = {}
_texts: dict[int, tuple[Conflict, str]] = {}


class _UnreadableError(Exception):
    """A line is not a combination. `name` is its id as far as it could be read."""

    def __init__(self, message: str, name: object = None) -> None:
        super().__init__(message)
        self.name = name if isinstance(name, (str, int)) and not isinstance(name, bool) else None


def run(stdin: BinaryIO, stdout: TextIO) -> int:
    """Answer every line of `stdin` on `stdout`, in order. The exit code is always 0."""
    for line in _lines(stdin):
        stdout.write(answer(line))
        stdout.write("\n")
    stdout.flush()
    return 0


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines, None for one that is too long."""
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) <= LONGEST_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_LINE)
        yield None


def answer(line: bytes | None) -> str:
    """Return the answer to one line, as JSON."""
    try:
        name, config = _read(line)
    except _UnreadableError as error:
        problem = Conflict("input", "fail", str(error), "", "", ())
        return _joined(error.name, _body(Verdict("fail", (problem,)), None))
    known = repr(config)
    body = _answers.get(known)
    if body is None:
        board = Board.of(config)
        body = _body(board.verdict(), nearest_to_board(board))
        if len(_answers) < _REMEMBERED and len(known) < 2000:
            _answers[known] = body
    return _joined(name, body)


def _joined(name: object, body: str) -> str:
    return f'{{"id": {_encode(name)}, {body}}}'


def _body(verdict: Verdict, near: dict[str, object] | None) -> str:
    findings = ", ".join(map(_told, verdict.findings))
    told = "null" if near is None else _encode(near)
    return f'"verdict": "{verdict.verdict}", "findings": [{findings}], "nearest": {told}'


def _told(finding: Conflict) -> str:
    """Return a finding as JSON. Rules remember what they found, so the same objects come again."""
    known = _texts.get(id(finding))
    if known is not None and known[0] is finding:
        return known[1]
    text = _encode(finding.as_json())
    if len(_texts) < _REMEMBERED:
        _texts[id(finding)] = finding, text
    return text


def _read(line: bytes | None) -> tuple[object, dict[str, object]]:
    if line is None:
        raise _UnreadableError(f"the line is longer than {LONGEST_LINE} bytes")
    _repeated.clear()
    try:
        document = _decoder.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _UnreadableError("the line is not UTF-8") from None
    except RecursionError:
        raise _UnreadableError("the line is nested too deeply") from None
    except ValueError as error:
        raise _UnreadableError(f"the line is not JSON: {str(error)[:120]}") from None
    return _combination(document, _repeated)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        _repeated.extend(sorted({key for key in names if names.count(key) > 1})[:5])
    return found


_repeated: list[str] = []
"""The keys that the line being read gives twice."""
_decoder = json.JSONDecoder(object_pairs_hook=_unique)


def _combination(document: object, repeated: list[str]) -> tuple[object, dict[str, object]]:
    if not isinstance(document, dict):
        raise _UnreadableError("the line is not an object with id and config")
    name = document.get("id")
    if repeated:
        shown = ", ".join(ascii(key[:40]) for key in repeated)
        raise _UnreadableError(f"given twice: {shown}", name)
    if name is None:
        raise _UnreadableError("the object has no id")
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise _UnreadableError("the id is neither text nor a whole number")
    config = document.get("config")
    if not isinstance(config, dict):
        raise _UnreadableError("the object has no config, or it is not an object", name)
    return name, config
