"""matrix.yaml -> rows. Every fault is reported at its line and column, all of them at once."""

from __future__ import annotations

import difflib
import fnmatch
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from builder.errors import Finding, InvalidInput, NothingSelected
from builder.matrix_model import (
    FLASH_FORMS,
    DistributionModel,
    FamilyModel,
    FlashModel,
    MatrixModel,
    SourcesModel,
    StackModel,
)
from builder.spec import (
    Artifact,
    FlashAttention,
    ImageSpec,
    StackSpec,
    TensorRT,
    Weight,
)
from builder.yamlfile import Document, KeyPath, load_yaml

__all__ = ["Matrix", "load_matrix", "parse_matrix", "select"]


# What the judge calls by another name than the file does.
_OF_WEIGHTS = {"weights": "", "sha256": "sha256", "asset_tag": "url", "weights_lineage": "lineage"}
_WRITTEN_AS = {
    **dict.fromkeys(_OF_WEIGHTS, "weights"),
    "onnxruntime_gpu": "onnxruntime",
    "gpu": "gpus",
    "sm": "gpus",
    "flash_attn_source": "flash_attn",
    "glibc": "suite",
    "base": "suite",
}


@dataclass(frozen=True)
class Matrix:
    """The rows of a matrix in file order, the file they come from, and where each is defined."""

    rows: tuple[ImageSpec, ...]
    budgets: Mapping[str, Mapping[str, Mapping[str, float]]]
    sources: SourcesModel
    document: Document

    def place(self, row: ImageSpec, field: str = "", value: str = "") -> str:
        """Where `field` of a row is written, as `matrix.yaml:14:18`.

        Where a field has several values, `value` says which: a GPU, a checkpoint.
        """
        stack: KeyPath = ("stacks", row.stack.name)
        if not field:
            return self.document.place(stack, key=True)
        written = _WRITTEN_AS.get(field, field)
        if field in _OF_WEIGHTS and any(weight.name == value for weight in row.weights):
            entry: KeyPath = ("weights", value)
            within = (*entry, _OF_WEIGHTS[field]) if _OF_WEIGHTS[field] else entry
            return self.document.place(within, key=within == entry)
        paths: dict[str, KeyPath] = {
            "weights": ("families", row.family, "weights"),
            "distribution": ("families", row.family, "distribution"),
            "ultralytics": ("distributions", row.distribution, "version"),
            "platform": ("platform",),
        }
        path = paths.get(written, (*stack, written))
        if written == "gpus" and value in row.stack.gpus:
            path = (*path, row.stack.gpus.index(value))
        return self.document.place(path)


def load_matrix(path: Path) -> Matrix:
    """Read and expand the matrix at `path`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidInput(
            Finding(
                place=str(path),
                what="no such file",
                todo="Run from the project's folder, or name the file with --matrix.",
            )
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(Finding(place=str(path), what=f"can't be read: {error}")) from error
    return parse_matrix(text, path.name)


def parse_matrix(text: str, name: str = "matrix.yaml") -> Matrix:
    """Parse and expand: text in, rows out."""
    document = load_yaml(text, name)
    try:
        model = MatrixModel.model_validate(document.data)
    except ValidationError as error:
        findings = [_describe(detail, document) for detail in error.errors()]
        raise InvalidInput(*dict.fromkeys(findings)) from error
    findings = list(_reference_faults(model, document))
    if findings:
        raise InvalidInput(*findings)
    rows = tuple(_expand(model))
    faults = list(_exclusion_faults(model, rows, document))
    if faults:
        raise InvalidInput(*faults)
    excluded = [rule.row for rule in model.exclude]
    kept = tuple(row for row in rows if not _matches_any(row.id, excluded))
    return Matrix(kept, model.budgets, model.sources, document)


def select(rows: Sequence[ImageSpec], pattern: str | None) -> tuple[ImageSpec, ...]:
    """Return the rows whose id matches the shell pattern; matching none is an error."""
    if pattern is None:
        return tuple(rows)
    chosen = tuple(row for row in rows if fnmatch.fnmatchcase(row.id, pattern))
    if not chosen:
        ids = [row.id for row in rows]
        raise NothingSelected(
            Finding(
                place="",
                what=f"no row matches {pattern!r}",
                why=_perhaps(pattern, ids),
                todo=f"Rows: {', '.join(ids)}",
            )
        )
    return chosen


def _expand(model: MatrixModel) -> Iterator[ImageSpec]:
    for stack_name, stack in model.stacks.items():
        for family_name, family in model.families.items():
            distribution = model.distributions[family.distribution]
            yield ImageSpec(
                id=f"{family_name}-{stack_name}",
                family=family_name,
                image=family.image,
                distribution=family.distribution,
                ultralytics=distribution.version,
                archive=_archive(family.distribution, distribution),
                requirements=tuple(distribution.requirements),
                platform=model.platform,
                stack=_stack(stack_name, stack),
                flash_attn=_flash_attention(family, stack),
                weights=tuple(_weight(model, name) for name in family.weights),
            )


def _stack(name: str, stack: StackModel) -> StackSpec:
    tensorrt = None
    if stack.tensorrt is not None:
        requirement = Requirement(stack.tensorrt)
        tensorrt = TensorRT(
            package=requirement.name, version=next(iter(requirement.specifier)).version
        )
    return StackSpec(
        name=name,
        suite=stack.suite,
        python=stack.python,
        cuda=stack.cuda,
        index=stack.index,
        torch=stack.torch,
        torchvision=stack.torchvision,
        tensorrt=tensorrt,
        onnxruntime=stack.onnxruntime,
        gpus=tuple(stack.gpus),
    )


def _archive(name: str, distribution: DistributionModel) -> Artifact | None:
    archive = distribution.archive
    if archive is None:
        return None
    return Artifact(
        name=name,
        version=distribution.version,
        url=archive.url,
        sha256=archive.sha256,
        size=archive.size,
        status=archive.status,
    )


def _flash_attention(family: FamilyModel, stack: StackModel) -> FlashAttention | None:
    if not family.flash_attn or stack.flash_attn is None:
        return None
    if isinstance(stack.flash_attn, FlashModel):
        return FlashAttention(version=stack.flash_attn.version, source=stack.flash_attn.source)
    return FlashAttention(version=stack.flash_attn, source="wheel")


def _weight(model: MatrixModel, name: str) -> Weight:
    entry = model.weights[name]
    return Weight(
        name=name,
        url=entry.url,
        sha256=entry.sha256,
        size=entry.size,
        licence=entry.licence,
        lineage=entry.lineage,
        architecture=entry.architecture,
        status=entry.status,
    )


def _reference_faults(model: MatrixModel, document: Document) -> Iterator[Finding]:
    """Names that point at nothing, and lists that name a thing twice."""
    for name, family in model.families.items():
        path: KeyPath = ("families", name)
        if family.distribution not in model.distributions:
            yield _unknown(
                document.place((*path, "distribution")),
                "distribution",
                family.distribution,
                model.distributions,
            )
        for i, weight in enumerate(family.weights):
            if weight not in model.weights:
                yield _unknown(
                    document.place((*path, "weights", i)), "checkpoint", weight, model.weights
                )
        yield from _repeated(document, (*path, "weights"), family.weights)
    for name, stack in model.stacks.items():
        yield from _repeated(document, ("stacks", name, "gpus"), stack.gpus)


def _exclusion_faults(
    model: MatrixModel, rows: Sequence[ImageSpec], document: Document
) -> Iterator[Finding]:
    ids = [row.id for row in rows]
    for i, rule in enumerate(model.exclude):
        if not fnmatch.filter(ids, rule.row):
            yield Finding(
                place=document.place(("exclude", i, "row")),
                what=f"{rule.row!r} matches no row",
                why=_perhaps(rule.row, ids),
                todo=f"Rows before exclusion: {', '.join(ids)}",
            )
    for row_id in dict.fromkeys(row_id for row_id in ids if ids.count(row_id) > 1):
        yield Finding(
            place=document.place(("families",), key=True),
            what=f"two rows get the id {row_id!r}",
            why="A row id is family-stack; a hyphen in both names can make two of them equal.",
            todo="Rename a stack or a family.",
        )


def _repeated(document: Document, path: KeyPath, items: Sequence[str]) -> Iterator[Finding]:
    for i, item in enumerate(items):
        if item in items[:i]:
            yield Finding(
                place=document.place((*path, i)), what=f"{item!r} is given twice", todo="Keep one."
            )


def _unknown(place: str, kind: str, name: str, known: Iterable[str]) -> Finding:
    names = list(known)
    return Finding(
        place=place,
        what=f"unknown {kind} {name!r}",
        why=_perhaps(name, names),
        todo=f"Known: {', '.join(names)}",
    )


def _perhaps(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Perhaps you meant {close[0]!r}?" if close else ""


def _matches_any(row_id: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(row_id, pattern) for pattern in patterns)


def _describe(detail: ErrorDetails, document: Document) -> Finding:
    """Turn one of pydantic's errors into a finding in the words of the file."""
    path: KeyPath = tuple(part for part in detail["loc"] if part not in {"[key]", *FLASH_FORMS})
    dotted = ".".join(str(part) for part in path) or "the file"
    place = document.place(path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _fields_at(path[:-1])
        return Finding(
            place=document.place(path, key=True),
            what=f"{dotted}: unknown key",
            why=_perhaps(str(path[-1]), known),
            todo=f"Known here: {', '.join(known)}",
        )
    if kind == "missing":
        parent = document.place(path[:-1], key=True)
        return Finding(place=parent, what=f"{dotted} is missing", todo="Add it.")
    if kind == "string_type" and isinstance(detail["input"], (int, float)):
        written = document.raw.get(path, str(detail["input"]))
        return Finding(
            place=place,
            what=f"{dotted}: {detail['input']} is a number, not a version",
            why=f"YAML reads {written} as {detail['input']}.",
            todo=f'Quote it: {path[-1]}: "{written}"',
        )
    message = str(detail["msg"]).removeprefix("Value error, ")
    return Finding(place=place, what=f"{dotted}: {message[0].lower()}{message[1:]}")


def _fields_at(path: KeyPath) -> list[str]:
    """The keys that the model knows at `path`."""
    current: object = MatrixModel
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = _unwrap(field.annotation) if field else None
        else:
            arguments = typing.get_args(current)
            current = _unwrap(arguments[-1]) if arguments else None
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _unwrap(annotation: object) -> object:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _unwrap(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        options = [item for item in typing.get_args(annotation) if item is not type(None)]
        return _unwrap(options[0])
    return annotation
