"""A pickle as a graph of plain nodes, read without importing or calling anything.

`pickletools` knows the opcodes and reads what stands behind them; the machine here does with them
what the unpickler would do, except that a global stays a name and a call stays a note of what would
be called. So a file from a stranger can be read. Whether it may be loaded is another question.

Only what `torch.save` writes is understood: protocol 2 to 5, without the text opcodes of protocol
0, extension codes and out-of-band buffers.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from builder.errors import Finding

__all__ = [
    "CheckpointError",
    "Graph",
    "Name",
    "Node",
    "Persistent",
    "dotted",
    "read_pickle",
    "shown",
]

MAX_PICKLE_BYTES = 16_000_000
"""yolo12x's pickle with the state of its optimizer has 0.47 MB (torch 2.8, ultralytics 8.4.190)."""

MAX_OPCODES = 500_000
"""yolo12x with the state of its optimizer has 190,000. An opcode makes a node of some 250 bytes at
most, so this bounds what a stranger can take, too: about 0.15 GB and one second."""

MAX_DEPTH = 100
"""Marks that are open at the same time, which is how deep objects are nested: yolo12x has 20."""

MAX_NAME = 200
"""Characters of a global: torch's and ultralytics' have less than 60."""


class CheckpointError(ValueError):
    """A file that is no whole checkpoint. Which file it is, the caller knows: see `finding`."""

    def __init__(self, what: str, *, why: str = "", todo: str = "") -> None:
        super().__init__(what)
        self._parts = (what, why, todo)

    def finding(self, place: str) -> Finding:
        """Return what is wrong with the file that `place` names."""
        what, why, todo = self._parts
        return Finding(place=place, what=what, why=why, todo=todo)


@dataclass(frozen=True, eq=False)
class Name:
    """A global: what the unpickler would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class Persistent:
    """A reference to something outside of the pickle: in torch's files, a storage."""

    id: object


class Node:
    """An object that the unpickler would make from `maker` with `args`.

    `called` tells `maker(*args)` from `maker.__new__(maker, *args)`. `state` is what the object
    would be filled with, `entries` its key-value pairs, `items` its members. Nodes are compared by
    identity, because the graph of a stranger may contain itself.
    """

    __slots__ = ("_fields", "args", "called", "entries", "items", "maker", "state")

    def __init__(self, maker: object, args: object = (), *, called: bool = False) -> None:
        self.maker = maker
        self.args = args
        self.called = called
        self.state: object = None
        self.entries: list[tuple[object, object]] = []
        self.items: list[object] = []
        self._fields: dict[str, object] | None = None

    def fields(self) -> dict[str, object]:
        """Return the entries whose keys are strings.

        Other keys are left out: a stranger can choose numbers whose hashes all collide, which makes
        filling a dict quadratic. The hashes of strings are seeded.
        """
        if self._fields is None:
            self._fields = {key: value for key, value in self.entries if isinstance(key, str)}
        return self._fields

    def attributes(self) -> dict[str, object]:
        """Return what the object was filled with, by name; none of what it keeps in slots."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state.fields() if isinstance(state, Node) else {}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Graph:
    """The root of a pickle, every name in it, and every node that is made by a class or a call."""

    root: object
    names: tuple[Name, ...]
    made: tuple[Node, ...]


DICT, LIST, SET, FROZENSET = (
    Name("builtins", kind) for kind in ("dict", "list", "set", "frozenset")
)
# Protocol 2 spells modules as Python 2 did, for the sake of old readers.
_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def read_pickle(data: bytes) -> Graph:
    """Return the graph of `data`; CheckpointError unless it is a whole pickle within the limits."""
    if len(data) > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"its pickle is too large: {len(data)} bytes",
            why=f"Checkpoints of YOLO have less than {MAX_PICKLE_BYTES}.",
        )
    machine = _Machine()
    stream = io.BytesIO(data)
    at = 0
    try:
        while machine.running:
            at = stream.tell()
            machine.step(stream)
    except _RefusedError as error:
        raise CheckpointError(f"its pickle {error} (byte {at})") from error
    except IndexError as error:
        raise CheckpointError(
            f"its pickle takes from an empty stack: it is damaged (byte {at})"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"its pickle is damaged or cut off after byte {at}: {shown(str(error))}"
        ) from error
    return Graph(root=machine.root, names=tuple(machine.names.values()), made=tuple(machine.made))


def dotted(value: object) -> str:
    """Return `value` as `module.name`, or nothing when it is no global.

    Never `str` of anything else in a graph: it may contain itself, or itself twice.
    """
    return str(value) if isinstance(value, Name) else ""


def shown(text: str) -> str:
    """Return `text` as it may stand in a message: printable and short, whoever wrote it."""
    printable = text[:100].encode("unicode_escape").decode()
    return printable if len(printable) <= 80 else f"{printable[:77]}..."


class _RefusedError(Exception):
    """Something in the pickle that the machine does not do."""


class _Machine:
    """The unpickler's stack. Above each mark begins a stack of its own, as in `pickle.py`."""

    def __init__(self) -> None:
        self.running = True
        self.root: object = None
        self.names: dict[tuple[str, str], Name] = {}
        self.made: list[Node] = []
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self._count = 0
        self._steps = self._table()

    def step(self, stream: IO[bytes]) -> None:
        """Do what the next opcode says; IndexError when the stack lacks what it takes.

        What stands behind an opcode is read only when the machine knows it: `genops` would read the
        numbers and strings of protocol 0, too, which takes quadratic time and raises warnings.
        """
        self._count += 1
        if self._count > MAX_OPCODES:
            raise _RefusedError(f"has too many opcodes: more than {MAX_OPCODES}")
        byte = stream.read(1)
        if byte not in _OPCODES:
            raise ValueError(f"no opcode is {byte!r}" if byte else "there is no end mark")
        opcode, read = _OPCODES[byte]
        do = self._steps.get(opcode)
        if do is None:
            raise _RefusedError(f"has an unsupported opcode: {opcode}")
        do(read(stream))

    def _table(self) -> dict[str, Callable[[Any], None]]:
        return {
            **dict.fromkeys(_PLAIN, self._push),
            "PROTO": self._nothing,
            "FRAME": self._nothing,
            "NEWTRUE": lambda _: self._stack.append(True),
            "NEWFALSE": lambda _: self._stack.append(False),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "EMPTY_LIST": lambda _: self._push(Node(LIST)),
            "EMPTY_DICT": lambda _: self._push(Node(DICT)),
            "EMPTY_SET": lambda _: self._push(Node(SET)),
            "FROZENSET": self._frozenset,
            "MARK": self._mark,
            "POP": self._pop,
            "POP_MARK": self._pop_mark,
            "DUP": lambda _: self._push(self._stack[-1]),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "TUPLE": lambda _: self._push(tuple(self._to_mark())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "APPEND": lambda _: self._extend([self._stack.pop()]),
            "APPENDS": lambda _: self._extend(self._to_mark()),
            "ADDITEMS": lambda _: self._extend(self._to_mark()),
            "SETITEM": self._set_item,
            "SETITEMS": lambda _: self._update(self._to_mark()),
            "GLOBAL": lambda lines: self._name(*lines),
            "STACK_GLOBAL": self._stack_name,
            "REDUCE": lambda _: self._make(called=True),
            "NEWOBJ": lambda _: self._make(called=False),
            "NEWOBJ_EX": self._make_with_keywords,
            "BUILD": self._build,
            "BINPERSID": lambda _: self._push(Persistent(self._stack.pop())),
            "STOP": self._stop,
        }

    def _nothing(self, argument: object) -> None:
        pass

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _mark(self, _: object) -> None:
        if len(self._below) >= MAX_DEPTH:
            raise _RefusedError(f"is nested too deep: more than {MAX_DEPTH} levels")
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[object]:
        """Return what lies above the last mark, and go back below it."""
        above, self._stack = self._stack, self._below.pop()
        return above

    def _pop(self, _: object) -> None:
        # The unpickler takes a mark for an entry, too.
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _pop_mark(self, _: object) -> None:
        self._to_mark()

    def _put(self, index: int) -> None:
        if index >= MAX_OPCODES:
            raise _RefusedError(f"has a memo index that is too large: {index}")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise _RefusedError(f"refers to memo entry {index}, which it never wrote")
        self._push(self._memo[index])

    def _tuple(self, length: int) -> None:
        values = [self._stack.pop() for _ in range(length)]
        self._push(tuple(reversed(values)))

    def _node(self, doing: str) -> Node:
        """Return the topmost object, which an opcode is about to fill."""
        top = self._stack[-1]
        if not isinstance(top, Node):
            raise _RefusedError(f"{doing} something that is no object")
        return top

    def _frozenset(self, _: object) -> None:
        items = self._to_mark()
        self._push(Node(FROZENSET))
        self._extend(items)

    def _extend(self, values: list[object]) -> None:
        self._node("adds to").items.extend(values)

    def _set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _update(self, flat: list[object]) -> None:
        if len(flat) % 2:
            raise _RefusedError("has a key without a value")
        self._node("sets entries of").entries.extend(zip(flat[::2], flat[1::2], strict=True))

    def _name(self, module: str, name: str) -> None:
        if len(module) + len(name) > MAX_NAME:
            raise _RefusedError(f"has a global whose name is longer than {MAX_NAME} characters")
        module = _MODULES.get(module, module)
        self._push(self.names.setdefault((module, name), Name(module, name)))

    def _stack_name(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise _RefusedError("has a global whose name is no text")
        self._name(module, name)

    def _make(self, *, called: bool) -> None:
        args, maker = self._stack.pop(), self._stack.pop()
        node = Node(maker, args, called=called)
        self.made.append(node)
        self._push(node)

    def _make_with_keywords(self, _: object) -> None:
        self._stack.pop()
        self._make(called=False)

    def _build(self, _: object) -> None:
        state = self._stack.pop()
        node = self._node("fills")
        if node.state is not None:
            raise _RefusedError("fills an object twice")
        node.state = state

    def _stop(self, _: object) -> None:
        self.root = self._stack.pop()
        self.running = False


def _two_lines(stream: IO[bytes]) -> tuple[str, str]:
    """Read a global as the unpickler does; `pickletools` would replace escapes in it."""
    module, name = stream.readline(), stream.readline()
    if not (module.endswith(b"\n") and name.endswith(b"\n")):
        raise ValueError("a global is cut off")
    return module[:-1].decode(), name[:-1].decode()


def _no_argument(stream: IO[bytes]) -> None:
    pass


_OPCODES: dict[bytes, tuple[str, Callable[[IO[bytes]], Any]]] = {
    opcode.code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg else _no_argument)
    for opcode in pickletools.opcodes
}
_OPCODES[b"c"] = ("GLOBAL", _two_lines)
# Opcodes that push what stands behind them, as `pickletools` has decoded it.
_PLAIN = (
    "NONE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "LONG4",
    "BINFLOAT",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
)
