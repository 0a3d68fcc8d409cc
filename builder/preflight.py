"""Before anything is built: which parts of which rows can be had from here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from builder.artifacts import ArtifactLock
from builder.errors import Finding, InvalidInput, SourceUnreachable
from builder.lock import Lock
from builder.mirrors import public_url
from builder.records import Missing
from builder.spec import ImageSpec, Weight

__all__ = [
    "OPTIONAL_PARTS",
    "DeadSource",
    "Reach",
    "ask",
    "dead_sources",
    "parse_allowed",
    "survey",
    "wanted_by",
]

OPTIONAL_PARTS = ("tensorrt", "flash-attn", "weights")
"""What a partial image may lack. Without the rest there is no image."""

Reach = Callable[[str], str | None]
"""URL -> None when it answers, else a short reason."""


def parse_allowed(text: str | None) -> frozenset[str]:
    """Parse `--allow-missing`: None (nothing may be missing), `auto`, or a list of parts."""
    if text is None:
        return frozenset()
    if text == "auto":
        return frozenset(OPTIONAL_PARTS)
    parts = [part.strip() for part in text.split(",")]
    unknown = [part for part in parts if part not in OPTIONAL_PARTS]
    if unknown:
        raise InvalidInput(
            Finding(
                place="--allow-missing",
                what=f"unknown part {unknown[0]!r}",
                todo=f"Write auto, or some of: {', '.join(OPTIONAL_PARTS)}",
            )
        )
    return frozenset(parts)


@dataclass(frozen=True, kw_only=True)
class DeadSource:
    """A file that a row's step needs and that can't be had, and why."""

    row: str
    part: str
    url: str
    reason: str


def survey(
    rows: Sequence[ImageSpec],
    locks: Mapping[str, Lock],
    allowed: Collection[str],
    *,
    reach: Reach,
    have: Callable[[Weight | ArtifactLock], bool],
) -> dict[str, tuple[Missing, ...]]:
    """Return for each row id the parts that can't be had, all of them allowed to be missing.

    `have` says whether a file already lies on this machine. SourceUnreachable lists every source
    that does not answer and may not be missing.
    """
    wanted = {row.id: list(wanted_by(row, locks[row.id], have)) for row in rows}
    answers = ask({url for parts in wanted.values() for _, url in parts}, reach)
    result: dict[str, tuple[Missing, ...]] = {}
    dead: list[DeadSource] = []
    for row in rows:
        absent: dict[str, Missing] = {}
        for part, url in wanted[row.id]:
            reason = answers[url]
            if reason is None:
                continue
            if part in allowed:
                absent.setdefault(part, _missing(part, url, reason))
            else:
                dead.append(DeadSource(row=row.id, part=part, url=url, reason=reason))
        result[row.id] = tuple(absent[part] for part in OPTIONAL_PARTS if part in absent)
    if dead:
        raise SourceUnreachable(*dead_sources(dead))
    return result


def ask(urls: Iterable[str], reach: Reach) -> dict[str, str | None]:
    """Ask all `urls` at once; None means that it answers."""
    sorted_urls = sorted(urls)
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(sorted_urls, pool.map(reach, sorted_urls), strict=True))


def wanted_by(
    row: ImageSpec, lock: Lock, have: Callable[[Weight | ArtifactLock], bool]
) -> Iterator[tuple[str, str]]:
    """Yield (part, URL) of everything outside the package index that is not on this machine."""
    for artifact in lock.record.artifacts:
        if artifact.question is not None and not have(artifact):
            yield artifact.part, artifact.question
    for artifact in lock.flash.record.artifacts if lock.flash is not None else ():
        if artifact.url is not None and not have(artifact):
            yield artifact.part, artifact.url
    for weight in row.weights:
        if not have(weight):
            yield "weights", weight.url


def _missing(part: str, url: str, reason: str) -> Missing:
    # It ends in the image: whatever password the address holds must not.
    source = public_url(url)
    return Missing.model_validate({"part": part, "source": source, "reason": reason})


def dead_sources(dead: Iterable[DeadSource]) -> Iterator[Finding]:
    """One finding per step, host and reason: a matrix asks the same dead host a hundred times."""
    groups: dict[tuple[str, str, str], list[DeadSource]] = {}
    for item in dead:
        host = urlsplit(item.url).netloc
        groups.setdefault((item.part, host, item.reason), []).append(item)
    for (part, _, reason), items in groups.items():
        rows = list(dict.fromkeys(item.row for item in items))
        urls = list(dict.fromkeys(item.url for item in items))
        more = f" ({len(urls) - 1} more files there)" if len(urls) > 1 else ""
        optional = part in OPTIONAL_PARTS
        yield Finding(
            place=f"{_few(rows)}, step {part}",
            what=f"{public_url(urls[0])}: {reason}{more}",
            why="" if optional else "There is no image without this part.",
            todo="Check network and proxies, name a mirror under sources: in matrix.yaml, or "
            + (
                f"allow a partial image: --allow-missing {part}"
                if optional
                else "leave the row out by a pattern."
            ),
        )


def _few(rows: Sequence[str]) -> str:
    return ", ".join(rows) if len(rows) <= 3 else f"{len(rows)} rows ({', '.join(rows[:2])}, ...)"
