"""tar.gz in and out: the same files give the same bytes, and nothing is unpacked outside of its folder."""

import gzip
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

_LEVEL = 1  # weights hardly shrink, whatever the effort: level 9 takes ten times as long for a few percent


def pack(files: Mapping[str, Path], target: IO[bytes]) -> None:
    """Write a tar.gz of files by their names in it."""
    # mtime=0 and bare members: neither the time nor the user of the packing is in the archive.
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as body:
                tar.addfile(member, body)


def files_below(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the files below folders by their relative names; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            # A link may point out of the job's folder, at files that are none of its business.
            if path.is_file() and not path.is_symlink():
                found.setdefault(path.relative_to(folder).as_posix(), path)
    return found


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar.gz.

    Raises:
        tarfile.TarError: It is no tar.gz, or a member would leave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, mode="r:gz") as tar:
        # The filter refuses absolute names, `..`, links out of the folder, devices and set-uid bits.
        tar.extractall(folder, filter="data")
