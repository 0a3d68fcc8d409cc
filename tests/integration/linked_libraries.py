"""Runs inside an image: which libraries do its files name that no file of the image provides?

Reads DT_NEEDED of every ELF file below site-packages; prints {library: [files that name it]}.
Format: https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html, 64 bits, little endian.
"""

from __future__ import annotations

import json
import os
import struct
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB = 1, 5


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    provided = {
        name
        for root in ("/lib", "/usr/lib", str(packages))
        for _, _, names in os.walk(root)
        for name in names
    }
    missing: defaultdict[str, list[str]] = defaultdict(list)
    read = 0
    for folder, _, names in os.walk(packages):
        for path in (Path(folder, name) for name in names):
            for library in needed(path):
                read += 1
                if library not in provided:
                    missing[library].append(str(path.relative_to(packages)))
    print(json.dumps({"read": read, "missing": missing}))


def needed(path: Path) -> Iterator[str]:
    """Yield the libraries that an ELF file is linked to; nothing for other files."""
    with path.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
        # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz
        segments = [struct.unpack_from("<IIQQQQ", table, size * index) for index in range(count)]
        entries: list[tuple[int, int]] = []
        for kind, _, start, _, _, length in segments:
            if kind == PT_DYNAMIC:
                file.seek(start)
                entries += struct.iter_unpack("<QQ", file.read(length))
        strings = dict(entries).get(DT_STRTAB, 0)
        for kind, _, start, address, _, length in segments:
            if kind == PT_LOAD and address <= strings < address + length:
                for tag, value in entries:
                    if tag == DT_NEEDED:
                        file.seek(start + strings - address + value)
                        yield file.read(256).split(b"\0")[0].decode()


if __name__ == "__main__":
    main()
