"""Datasets that are published as a zip file: downloaded once, checked, unpacked without trusting what is in it."""

import hashlib
import shutil
import stat
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from pydantic import Field

from tasks.aws.errors import DatasetError
from tasks.contracts import Value
from tasks.data.downloads import download
from tasks.data.folders import is_hidden
from tasks.data.locks import alone
from tasks.data.sentences import some

# Pictures hardly compress; a zip file that grows more than this was made to fill a disk.
_GREATEST_RATIO = 10
_MOST_MEMBERS = 1_000_000
_CHUNK_BYTES = 1 << 20
_ENCRYPTED = 0x1


class UnfitArchiveError(DatasetError):
    """What was downloaded is not the dataset, and was removed."""


class Archive(Value):
    """A published zip file; without a known digest the first download's is kept and later ones are held against it."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    url: str
    size_bytes: int
    folder: str = Field(description="The folder in the zip file that holds train, valid and test")
    sha256: str | None = None


DOG_BREEDS = Archive(
    name="dog-breeds",
    url="https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip",
    size_bytes=1_132_023_110,
    folder="dogImages",
)


def fetch_archive(archive: Archive, workspace: Path) -> Path:
    """Return the unpacked folder of an archive, downloaded into the workspace unless it is there already.

    Raises:
        UnfitArchiveError: The file is not the expected one, is broken or dangerous.
        DatasetError: It cannot be had, or does not fit on the disk.
        DownloadInterruptedError: The connection broke; the next call goes on where it did.
    """
    folder = workspace / archive.name
    with alone(workspace / f"{archive.name}.lock"):
        if not folder.exists():
            packed = workspace / f"{archive.name}.zip"
            download(archive.url, packed, archive.size_bytes)
            record, digest = packed.with_suffix(".zip.sha256"), _digest_of(packed)
            try:
                _verify_digest(archive, digest, record)
                _unpack(packed, folder, archive.folder)
            except UnfitArchiveError:
                packed.unlink()
                raise
            record.write_text(f"{digest}\n")
            packed.unlink()
    return folder / archive.folder


def _digest_of(packed: Path) -> str:
    with packed.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify_digest(archive: Archive, digest: str, record: Path) -> None:
    expected = archive.sha256 or (record.read_text().strip() if record.exists() else digest)
    if digest != expected:
        advice = "run again" if archive.sha256 else f"if you trust the new file, remove {record} and run again"
        msg = f"The file at {archive.url} is another one: its SHA-256 is {digest}, expected was {expected}; {advice}"
        raise UnfitArchiveError(msg)


def _unpack(packed: Path, folder: Path, inner: str) -> None:
    """Unpack into a scratch folder that gets its name when it is complete."""
    try:
        with (
            ZipFile(packed) as archive,
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch,
        ):
            members = [member for member in archive.infolist() if not member.is_dir() and not _is_hidden(member)]
            _check(members, packed, inner)
            _check_space(members, packed.parent)
            for member in members:
                _unpack_member(archive, member, Path(scratch, "unpacked"))
            Path(scratch, "unpacked").rename(folder)
    except (BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        msg = f"The downloaded file {packed.name} is no sound zip file ({error}): run again to download it anew"
        raise UnfitArchiveError(msg) from error


def _check(members: Sequence[ZipInfo], packed: Path, inner: str) -> None:
    """Refuse an archive that would write outside its folder, make links, or fill the disk; nothing is written yet."""
    dangerous = [ascii(member.filename) for member in members if _is_dangerous(member)]
    if dangerous:
        msg = f"The zip file {packed.name} has members that would leave its folder or are no files: {some(dangerous)}"
        raise UnfitArchiveError(msg)
    if not any(member.filename.startswith(f"{inner}/") for member in members):
        msg = f"The zip file {packed.name} has no folder {inner}: it is another dataset"
        raise UnfitArchiveError(msg)
    # zipfile reads no more of a member than it declares, so that the declared sizes can be trusted here.
    total = sum(member.file_size for member in members)
    if total > packed.stat().st_size * _GREATEST_RATIO or len(members) > _MOST_MEMBERS:
        msg = f"The zip file {packed.name} would become {len(members):,} files of {total:,} bytes: that is no dataset"
        raise UnfitArchiveError(msg)


def _check_space(members: Sequence[ZipInfo], folder: Path) -> None:
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        msg = (
            f"Unpacking takes {needed:,} bytes and {folder} has {free:,} free: "
            "make room, or set SAGEMAKER_FLOWS_CACHE to a folder on another disk"
        )
        raise DatasetError(msg)


def _is_dangerous(member: ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    return (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in member.filename
        or ":" in path.parts[0]
        or kind not in (0, stat.S_IFREG)
        or bool(member.flag_bits & _ENCRYPTED)
    )


def _is_hidden(member: ZipInfo) -> bool:
    return any(is_hidden(part) for part in PurePosixPath(member.filename).parts if part != "..")


def _unpack_member(archive: ZipFile, member: ZipInfo, folder: Path) -> None:
    target = folder / member.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)
