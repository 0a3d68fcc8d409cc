"""Images are read from a stream in one pass, and an image that lies or asks too much is refused."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder.archive import read_archive, read_blobs
from builder.errors import InvalidInput
from builder.layers import Image, Look
from builder.oci import short_step
from builder.tarball import Limits
from tests.unit.archive_support import Archive, Item, Trickle, digest_of, layer_tar, packed

FOLDER = tarfile.DIRTYPE


def paths(image: Image) -> list[str]:
    return sorted(path for path, (_, entry) in image.files().items() if entry.kind == "file")


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_an_image_is_read_whole_from_a_stream_that_can_not_seek(compression: str) -> None:
    big = bytes(range(256)) * 10_000
    archive = Archive(
        [Item(path="opt/", type=FOLDER, mode=0o755), Item(path="./opt/big", content=big, uid=7)],
        [
            Item(path="opt/link", type=tarfile.SYMTYPE, target="big"),
            Item(path="opt/hard", type=tarfile.LNKTYPE, target="opt/big"),
            Item(path="opt/" + "long/" * 40 + "name", pax={"SCHILY.xattr.user.a": "b"}),
        ],
        compression=compression,
        steps=["ADD rootfs.tar / # buildkit", "RUN /bin/sh -c true # buildkit"],
    )
    image = read_archive(archive.stream())
    assert image.digest == archive.manifest
    assert image.config["architecture"] == "amd64"
    assert image.size == sum(len(blob) for blob in archive.blobs.values())
    first, second = image.layers
    assert (first.digest, first.compression) == (archive.layers[0], compression)
    assert first.step == "ADD rootfs.tar / # buildkit"
    assert first.unpacked is not None
    assert first.unpacked > len(big)
    assert first.entries is not None
    assert second.entries is not None
    folder, file = first.entries
    assert (folder.path, folder.kind, folder.mode) == ("opt", "folder", 0o755)
    assert (file.path, file.size, file.uid, file.sha256) == ("opt/big", len(big), 7, None)
    link, hard, long = second.entries
    assert (link.kind, link.target) == ("symlink", "big")
    assert (hard.kind, hard.target, hard.size) == ("hardlink", "opt/big", 0)
    assert long.name == "name"
    assert long.pax == {"SCHILY.xattr.user.a": "b"}


def test_contents_are_hashed_and_kept_where_asked() -> None:
    archive = Archive([Item(path="a/RECORD", content=b"notes"), Item(path="b", content=b"bytes")])
    look = Look(hashes=True, keep=lambda entry: entry.name == "RECORD")
    (layer,) = read_archive(archive.stream(), look=look).layers
    assert layer.entries is not None
    record, other = layer.entries
    assert record.content == b"notes"
    assert other.content is None
    assert f"sha256:{other.sha256}" == digest_of(b"bytes")


def test_layers_that_are_left_out_are_named_but_not_unpacked() -> None:
    archive = Archive([Item(path="a")], [Item(path="b")])
    image = read_archive(archive.stream(), look=Look(layers=lambda d: d == archive.layers[1]))
    assert [layer.entries is None for layer in image.layers] == [True, False]
    assert image.layers[0].diff_id.startswith("sha256:")


def test_whiteouts_take_away_what_earlier_layers_have() -> None:
    archive = Archive(
        [Item(path=path) for path in ("a/one", "a/two", "b/x/deep", "c/old", "d/inner")],
        [
            Item(path="a/.wh.one"),
            Item(path=".wh.b"),
            Item(path="c/.wh..wh..opq"),
            Item(path="c/new"),
            Item(path="d"),
        ],
    )
    image = read_archive(archive.stream())
    assert paths(image) == ["a/two", "c/new", "d"]


def test_a_folder_of_blobs_gives_the_same_image(tmp_path: Path) -> None:
    archive = Archive([Item(path="a", content=b"1")], [Item(path="b", content=b"2")])
    for digest, data in archive.blobs.items():
        (tmp_path / digest.removeprefix("sha256:")).write_bytes(data)
    assert read_blobs(tmp_path, archive.manifest) == read_archive(archive.stream())
    (tmp_path / archive.layers[0].removeprefix("sha256:")).unlink()
    with pytest.raises(InvalidInput, match=rf"{archive.layers[0]}: the layer is missing"):
        read_blobs(tmp_path, archive.manifest)
    with pytest.raises(InvalidInput, match=r"sha256:0+: it holds 0 images"):
        read_blobs(tmp_path, "sha256:" + "0" * 64)
    # What is not asked for is not opened, so it need not be there.
    look = Look(layers=lambda digest: digest == archive.layers[1])
    assert read_blobs(tmp_path, archive.manifest, look=look).layers[1].entries is not None


def test_one_image_of_an_index_is_found_and_attestations_are_no_images() -> None:
    archive = Archive([Item(path="a")])
    note = archive.add_json({"config": archive.descriptor(archive.config), "layers": []})
    inner = archive.add_json(
        {
            "manifests": [
                archive.descriptor(archive.manifest),
                archive.descriptor(note, platform={"architecture": "unknown", "os": "unknown"}),
            ]
        }
    )
    archive.roots = [archive.descriptor(inner)]
    assert read_archive(archive.stream()).digest == archive.manifest


def test_platforms_that_share_a_layer_are_told_apart(tmp_path: Path) -> None:
    """Two images in one index: the layer is read once, and one image has to be named."""
    archive = Archive([Item(path="a")])
    layers = [archive.descriptor(archive.layers[0])]
    other = archive.add_json(
        {"config": archive.descriptor(archive.config), "layers": layers, "annotations": {"b": "c"}}
    )
    both = [archive.descriptor(each) for each in (archive.manifest, other)]
    index = archive.add_json({"manifests": both})
    for digest, data in archive.blobs.items():
        (tmp_path / digest.removeprefix("sha256:")).write_bytes(data)
    with pytest.raises(InvalidInput, match=rf"{index}: it holds 2 images(.|\n)*its own digest"):
        read_blobs(tmp_path, index)
    assert read_blobs(tmp_path, other).digest == other


def test_several_frames_are_one_layer() -> None:
    tar = layer_tar([Item(path="a", content=b"x" * 5000), Item(path="b")])
    archive = Archive(tar)
    halves = packed(tar[:3000], "zstd") + packed(tar[3000:], "zstd")
    swap_layer(archive, halves)
    assert paths(read_archive(archive.stream())) == ["a", "b"]


def swap_layer(archive: Archive, data: bytes) -> None:
    """Put `data` in the place of the only layer, as its manifest would name it."""
    del archive.blobs[archive.layers[0]]
    del archive.blobs[archive.manifest]
    layer = archive.add(data)
    archive.manifest = archive.add_json(
        {"config": archive.descriptor(archive.config), "layers": [archive.descriptor(layer)]}
    )
    archive.roots = [archive.descriptor(archive.manifest)]


def one(**changes: Any) -> Archive:
    return Archive([Item(**{"path": "a", "content": b"content", **changes})])


def without_layer() -> Archive:
    archive = one()
    del archive.blobs[archive.layers[0]]
    return archive


def changed_bytes() -> Archive:
    archive = Archive([Item(path="a", content=b"content")], compression="none")
    name = archive.layers[0]
    archive.blobs[name] = archive.blobs[name].replace(b"content", b"contend")
    return archive


def cut_layer() -> Archive:
    archive = Archive([Item(path="a", content=random.Random(1).randbytes(400_000))])
    data = archive.blobs[archive.layers[0]]
    swap_layer(archive, data[: len(data) // 2])
    return archive


def other_content() -> Archive:
    archive = one()
    swap_layer(archive, packed(layer_tar([Item(path="other")]), "zstd"))
    return archive


def behind_the_end() -> Archive:
    tar = layer_tar([Item(path="a")])
    return Archive(tar + layer_tar([Item(path="hidden")]))


def two_images() -> Archive:
    archive = one()
    other = archive.add_json({"config": archive.descriptor(archive.config), "layers": []})
    archive.roots.append(archive.descriptor(other))
    return archive


def no_layer_at_all() -> Archive:
    archive = one()
    swap_layer(archive, b"just some words")
    return archive


def damaged_config() -> Archive:
    return Archive([Item(path="a")], config={"rootfs": {"diff_ids": ["md5:1"]}})


def too_few_ids() -> Archive:
    return Archive([Item(path="a")], config={"rootfs": {"diff_ids": []}})


def bomb() -> Archive:
    return Archive([Item(path="zeros", content=bytes(20_000_000))])


def huge_header() -> Archive:
    return one(pax={"comment": "x" * 300_000})


def lying_size() -> Archive:
    """A header that claims gigabytes of long name: tarfile would read them into memory."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 6 << 30
    return Archive(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))


def chain_of_headers() -> Archive:
    """Extended headers of extended headers: each is a level of recursion in tarfile."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 10
    one_header = info.tobuf(tarfile.USTAR_FORMAT) + b"9 a=bcde\n".ljust(512, b"\0")
    return Archive(one_header * 1_500 + bytes(1_024))


def endless_config() -> Archive:
    archive = one()
    deep = archive.add(b'{"a":' + b"[" * 100_000)
    archive.config = deep
    swap_layer(archive, archive.blobs[archive.layers[0]])
    return archive


def endless_root() -> Archive:
    archive = one()
    archive.roots = [archive.descriptor(archive.add(b'{"manifests":' + b"[" * 100_000))]
    return archive


SMALL = Limits(headers=100_000, ratio=100, entries=3, path=50, kept=1_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_layer, r"sha256:\w+: the layer is missing"),
        (changed_bytes, "don't have the hash"),
        (cut_layer, "a file in it is cut off"),
        (other_content, r"it unpacks to sha256:\w+, not to"),
        (behind_the_end, "behind its end"),
        (two_images, "it holds 2 images"),
        (no_layer_at_all, "no tar, gzip or zstd"),
        (damaged_config, r"no Config: rootfs\.diff_ids\.0"),
        (too_few_ids, "it names 0 layers, the manifest 1"),
        (bomb, "unpacks to more than 10000000 bytes"),
        (huge_header, "headers of an entry take more than 100000 bytes"),
        (lying_size, "headers of an entry take more than 100000 bytes"),
        (chain_of_headers, r"headers of an entry|damaged"),
        (lambda: one(path="x" * 60), "more than 50 characters"),
        (lambda: one(path="a/../../etc/passwd"), "leads out of the image"),
        (lambda: Archive([Item(path=str(n)) for n in range(4)]), "more than 3 entries"),
    ],
)
def test_an_image_that_lies_or_asks_too_much_is_refused(
    make: Callable[[], Archive], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_archive(make().stream(), limits=SMALL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (chain_of_headers, r"headers of an entry|damaged"),
        (lying_size, "headers of an entry"),
        (endless_config, "no Config: document"),
        (endless_root, "no Manifest: document"),
    ],
)
def test_what_recursion_or_memory_could_not_bear_is_refused_by_default(
    make: Callable[[], Archive], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_archive(make().stream())


def test_what_is_kept_is_bounded() -> None:
    with pytest.raises(InvalidInput, match="to be read whole has more than"):
        read_archive(
            one(content=b"x" * 2_000).stream(), look=Look(keep=lambda _: True), limits=SMALL
        )


def test_sparse_files_are_refused() -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    with pytest.raises(InvalidInput, match=r"sparse|damaged"):
        read_archive(one(content=b"1\n0\n9\n".ljust(521, b"\0"), pax=pax).stream())


def test_a_zstd_window_of_gigabytes_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    tar = layer_tar([Item(path="a")])
    archive = Archive(tar)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    swap_layer(archive, compressor.compress(tar) + compressor.flush())
    with pytest.raises(InvalidInput, match="damaged"):
        read_archive(archive.stream())


@pytest.mark.parametrize("cut", [0, 100, 600, 2_000])
def test_a_stream_that_ends_early_is_no_image(cut: int) -> None:
    stream = one().stream()
    data = io.BufferedReader(stream).read(cut)
    with pytest.raises(InvalidInput):
        read_archive(Trickle(data))


def test_what_older_engines_export_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"no index\.json\n.*Docker 25"):
        read_archive(Trickle(layer_tar([Item(path="manifest.json", content=b"[]")])))


def test_names_that_are_not_utf8_can_be_printed() -> None:
    tar = layer_tar([Item(path="name")]).replace(b"name\0", b"na\xff\xfe\0")
    header = tar[:148] + b" " * 8 + tar[156:512]
    tar = tar[:148] + b"%06o\0 " % sum(header) + tar[156:]
    (path,) = paths(read_archive(Archive(tar).stream()))
    assert path == r"na\xff\xfe"


@pytest.mark.parametrize(
    ("step", "short"),
    [
        ("ADD rootfs.tar / # buildkit", "ADD rootfs.tar /"),
        ("RUN /bin/sh -c python a.py # buildkit", "RUN python a.py"),
        ("RUN |2 A=1 B=x y /bin/sh -c python \t a.py # buildkit", "RUN python a.py"),
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ("", ""),
    ],
)
def test_steps_are_shown_as_the_dockerfile_has_them(step: str, short: str) -> None:
    assert short_step(step) == short
