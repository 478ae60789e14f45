"""tar.gz in and out: the same files give the same bytes, and nothing is unpacked outside of its folder."""

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

_LEVEL = 1  # weights hardly shrink, whatever the effort: level 9 takes ten times as long for a few percent


class ArchiveError(Exception):
    """Something cannot be packed or unpacked as it is."""


def pack(files: Mapping[str, Path], target: IO[bytes]) -> None:
    """Write a tar.gz of files by their names in it."""
    # mtime=0 and bare members: neither the time nor the user of the packing is in the archive.
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            member.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            with path.open("rb") as body:
                tar.addfile(member, body)


def files_below(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the files below folders by their relative names; the first folder that has a name wins.

    A link counts as the file that it leads to, within its folder.

    Raises:
        ArchiveError: It leads elsewhere, where it is none of the job's business, or to no file.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(folder.resolve())):
                msg = f"{path.relative_to(folder)} is a link, and does not lead to a file within its folder"
                raise ArchiveError(msg)
            if path.is_file():
                found.setdefault(path.relative_to(folder).as_posix(), path)
    return found


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar.gz.

    Raises:
        ArchiveError: It is no tar.gz, or damaged, or a member would leave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            # The filter refuses absolute names, `..`, links out of the folder, devices and set-uid bits.
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        msg = f"not a tar.gz that can be unpacked: {error}"
        raise ArchiveError(msg) from error
