"""The `sources:` block of matrix.yaml, and the variables that stand for its keys and win.

`YOLO_SOURCES_NVIDIA="https://a.example https://b.example"` says what `nvidia: [...]` says. Proxies
are YOLO_SOURCES_PROXIES_HTTP, _HTTPS and _NO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from builder.errors import Finding, InvalidInput
from builder.matrix_model import SourcesModel

__all__ = ["PREFIX", "overlay"]

PREFIX = "YOLO_SOURCES_"


def overlay(written: SourcesModel, environment: Mapping[str, str]) -> SourcesModel:
    """Return `written` with what the environment says in its place; all faults at once."""
    known = {PREFIX + name.upper(): path for name, path in _keys(SourcesModel)}
    named = {key: value for key, value in environment.items() if key.startswith(PREFIX)}
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise InvalidInput(
            *(
                Finding(
                    place=name,
                    what="unknown variable",
                    todo=f"Known: {', '.join(sorted(known))}",
                )
                for name in unknown
            )
        )
    data = written.model_dump()
    for name, text in named.items():
        _set(data, known[name], text)
    try:
        return SourcesModel.model_validate(data)
    except ValidationError as error:
        names = {path: name for name, path in known.items()}
        raise InvalidInput(
            *dict.fromkeys(_fault(names, detail["loc"]) for detail in error.errors())
        ) from error


def error_path(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return the keys of a fault's location, without the index within a list."""
    return tuple(part for part in location if isinstance(part, str))


def _fault(names: Mapping[tuple[str, ...], str], location: tuple[int | str, ...]) -> Finding:
    # Not shown: what is written without a scheme may still hold a password.
    number = next((part for part in location if isinstance(part, int)), None)
    which = "" if number is None else f" {number + 1} in the list"
    return Finding(
        place=names[error_path(location)],
        what=f"the value{which} is not a URL",
        todo="Write http:// or https:// URLs.",
    )


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each key with its path; `proxies_http` is ("proxies", "http")."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from ((f"{name}_{below}", (name, *path)) for below, path in _keys(inner))
        else:
            yield name, (name,)


def _set(data: dict[str, Any], path: tuple[str, ...], text: str) -> None:
    *parents, last = path
    for name in parents:
        data = data[name]
    is_list = isinstance(data[last], list)
    data[last] = text.replace(",", " ").split() if is_list else (text.strip() or None)
