"""Read texts from a WebDataset: samples in a tar, whose headers, contents and end are all checked."""

import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from shoal.search.corpus.opening import KINDS_BY_ENDING, ending
from shoal.search.corpus.picking import Content, Pick
from shoal.search.corpus.quarantine import Bad
from shoal.search.corpus.records import bare, decoded, record_text, undecodable

Inside = Callable[[str, bytes], Iterator[Content]]  # reads a file of this name that lies in an archive
END_BLOCKS = 2  # blocks of zeros at the end of every tar
NO_END = "a tar must end in two blocks of zeros, but this one breaks off"


EOF_BLOCK = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # a block of zeros
NO_HEADER = tarfile.InvalidHeaderError  # type: ignore[attr-defined]


class _Header(tarfile.TarInfo):
    """A header that tells its archive what was found in the place of a header."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> "_Header":
        try:
            return super().fromtarfile(tarfile)
        except EOF_BLOCK:
            tarfile.zeros += 1
            raise
        except NO_HEADER:
            tarfile.zeros, tarfile.strange = 0, tarfile.strange + 1
            raise


class _Tar(tarfile.TarFile):
    """A tar whose reading goes on after a damaged header, at the next whole one."""

    tarinfo = _Header
    members: list[tarfile.TarInfo]
    zeros = 0  # blocks of zeros at the end of what was read
    strange = 0  # blocks since the last header that are no header


def archive_texts(stream: Any, pick: Pick, inside: Inside) -> Iterator[Content]:
    """Yield the document of each sample of a WebDataset: files of one tar, in a row, that share a name.

    A sample's text is its member `.txt` or `.FIELD`, else the field of its member `.json`. Where several fields
    are read, each is a member of this ending or a field of the member `.json`. Files of many texts,
    such as `.jsonl`, are read by `inside`.
    """
    name, parts = "", dict[str, bytes]()
    with _Tar.open(fileobj=stream, mode="r|", ignore_zeros=True) as tar:
        for member in _members(tar):
            if isinstance(member, Bad):
                yield member
                continue
            folder, base = os.path.split(member[0])
            key, _, extension = base.partition(".")
            if base.startswith("."):
                continue
            if (key := f"{folder}/{key}") != name and parts:
                yield from sample_texts(name, parts, pick, inside)
                parts = {}
            name, parts[extension.lower()] = key, member[1]
        if parts:
            yield from sample_texts(name, parts, pick, inside)


def _members(tar: _Tar) -> Iterator[tuple[str, bytes] | Bad]:
    """Yield the name and content of each plain file, then a `Bad` for all that was lost."""
    files = damages = lost = 0
    reason = broken = ""
    while not broken:
        member, wrong = _next(tar)
        if wrong:
            damages, lost = damages + 1, lost + max(tar.strange, 1) * tarfile.BLOCKSIZE
            reason = f"a damaged header in a tar: {wrong}"
        if member is None:
            broken = "" if tar.zeros >= END_BLOCKS or wrong else NO_END
            break
        tar.members = []  # otherwise all headers stay in memory
        tar.zeros = tar.strange = 0
        if member.isfile():
            file = tar.extractfile(member)
            assert file is not None, "a plain file"
            try:
                content = file.read()
            except tarfile.TarError:
                broken = "a tar that breaks off within a member"
                continue
            files += 1
            yield member.name, content
    if damages:
        at_their_size = (
            lost * files // max(tar.offset - lost, 1)
        )  # bytes lost, divided by the mean size of a whole file
        yield Bad(reason, documents=max(at_their_size, damages), lost=0 if files else lost)
    if broken:
        yield Bad(broken)


def _next(tar: _Tar) -> tuple[tarfile.TarInfo | None, str]:
    """Return the next header that is whole, and what is wrong with what lies before it."""
    wrong = ""
    while True:
        try:
            member = tar.next()
        except tarfile.TarError as error:
            wrong = str(error)
            tar.offset = tar.fileobj.tell()
            continue
        except Exception as error:  # each compression raises errors of its own
            if not tar.strange:
                raise
            return None, str(error)
        return member, "its checksum does not fit" if tar.strange else wrong


def sample_texts(name: str, parts: dict[str, bytes], pick: Pick, inside: Inside) -> Iterator[Content]:
    """Yield a sample's document; a member that is a file of many texts is read as one that lies outside."""
    if not pick.single:
        yield from sample_record(name, parts, pick, inside)
        return
    for extension in (pick.single, "txt"):
        if extension in parts:
            yield parts[extension]
            return
    if "json" in parts:
        yield record_text(parts["json"], pick)
        return
    files = many(parts, "txt", pick.single)
    for extension in files:
        yield from inside(f"{name}.{extension}", parts[extension])
    if not files:
        yield Bad(f"no member .txt, .{pick.single} or .json in a sample of {sorted(parts)[:8]}")


def many(parts: dict[str, bytes], *more: str) -> list[str]:
    """Return the endings of members that hold many texts."""
    return [extension for extension in parts if ending(f"x.{extension}") in (*KINDS_BY_ENDING, *more)]


def sample_record(name: str, parts: dict[str, bytes], pick: Pick, inside: Inside) -> Iterator[Content]:
    """Yield the document that a sample's members make together."""
    found: dict[str, Any] = {extension: content for extension, content in parts.items() if extension != "json"}
    if "json" in parts:
        try:
            told = decoded(bare(parts["json"]).decode())
        except Exception as error:
            yield Bad(undecodable(error))
            return
        found = {**told, **found} if isinstance(told, dict) else found
    files = many(parts) if "json" not in parts else []
    if not files or all(field in found for field in pick.fields):
        yield pick.of(found, "sample", b"")
        return
    for extension in files:
        yield from inside(f"{name}.{extension}", parts[extension])
