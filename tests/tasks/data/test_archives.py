"""The download and unpacking of a published zip file, from a server on loopback that can be made to misbehave."""

import hashlib
import io
import pickle
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.aws.errors import DatasetError, is_transient_error
from tasks.contracts import DatasetSpec
from tasks.data import archives
from tasks.data.archives import DOG_BREEDS, Archive, fetch_archive
from tasks.data.downloads import DownloadInterruptedError
from tasks.data.sources import stage


@dataclass
class Site:
    """A web server with one file."""

    body: bytes
    breaks_at: int | None = None
    status: int | None = None
    redirect: str | None = None
    etag: str = '"1"'
    port: int = 0
    ranges: list[str | None] = field(default_factory=list)

    def archive(self, **changes: object) -> Archive:
        known = {
            "name": "dog-breeds",
            "url": f"http://127.0.0.1:{self.port}/dogImages.zip",
            "size_bytes": len(self.body),
            "folder": "dogImages",
        }
        return Archive.model_validate(known | changes)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        start = 0
        if wanted and request.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        request.send_response(self.status or (302 if self.redirect else 206 if start else 200))
        if self.redirect:
            request.send_header("Location", self.redirect)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(self.body) - start))
        request.end_headers()
        request.wfile.write(self.body[start : self.breaks_at])


@contextmanager
def serving(body: bytes) -> Iterator[Site]:
    site = Site(body)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zipped(members: dict[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


@pytest.fixture
def dogs(picture: Callable[..., bytes]) -> dict[str | zipfile.ZipInfo, bytes]:
    labels = ("001.Affenpinscher", "002.Afghan_hound")
    paths = [f"dogImages/{split}/{label}/dog.png" for split in ("train", "valid", "test") for label in labels]
    return {path: picture(index, size=32) for index, path in enumerate(paths)}


@pytest.fixture
def site(dogs: dict[str | zipfile.ZipInfo, bytes]) -> Iterator[Site]:
    with serving(zipped(dogs)) as site:
        yield site


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_archive_is_downloaded_once_and_unpacked(site: Site, tmp_path: Path) -> None:
    for _ in range(2):
        staged = stage(DatasetSpec(source="dog-breeds"), tmp_path, site.archive())
        assert [(i.split, i.label) for i in staged.images][:2] == [
            ("test", "001.Affenpinscher"),
            ("test", "002.Afghan_hound"),
        ]
    assert staged.name == "dog-breeds"
    assert len(staged.images) == 6
    assert len(site.ranges) == 1


def test_nothing_but_the_dataset_and_its_digest_is_kept(site: Site, tmp_path: Path) -> None:
    fetch_archive(site.archive(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dog-breeds",
        "dog-breeds.lock",
        "dog-breeds.zip.sha256",
    ]
    assert (tmp_path / "dog-breeds.zip.sha256").read_text().strip() == hashlib.sha256(site.body).hexdigest()


def test_a_download_that_broke_off_goes_on_where_it_did(site: Site, tmp_path: Path) -> None:
    site.breaks_at = 700
    with pytest.raises(DownloadInterruptedError, match="broke off at 700 of"):
        fetch_archive(site.archive(), tmp_path)
    site.breaks_at = None
    fetch_archive(site.archive(), tmp_path)
    assert site.ranges == [None, "bytes=700-"]
    assert len(contents(tmp_path / "dog-breeds")) == 6


def test_a_file_that_changed_meanwhile_is_downloaded_from_its_start(site: Site, tmp_path: Path) -> None:
    site.breaks_at = 700
    with pytest.raises(DownloadInterruptedError):
        fetch_archive(site.archive(), tmp_path)
    site.breaks_at, site.etag = None, '"2"'
    fetch_archive(site.archive(), tmp_path)
    assert len(contents(tmp_path / "dog-breeds")) == 6


def test_a_broken_connection_is_worth_another_try(site: Site, tmp_path: Path) -> None:
    site.breaks_at = 700
    with pytest.raises(DownloadInterruptedError) as caught:
        fetch_archive(site.archive(), tmp_path)
    assert is_transient_error(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own


def test_a_server_that_cannot_be_reached_is_worth_another_try(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadInterruptedError, match="broke off at 0 of"):
        fetch_archive(site.archive(url="http://127.0.0.1:9/dogImages.zip"), tmp_path)


@pytest.mark.parametrize(("status", "transient"), [(404, False), (403, False), (503, True), (429, True)])
def test_a_refused_download_says_why(site: Site, tmp_path: Path, status: int, *, transient: bool) -> None:
    site.status = status
    with pytest.raises(DatasetError, match=f"was refused: {status}") as caught:
        fetch_archive(site.archive(), tmp_path)
    assert is_transient_error(caught.value) == transient


def test_another_size_than_the_known_one_is_refused_before_it_is_downloaded(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="bytes and not the 5 of the known dataset"):
        fetch_archive(site.archive(size_bytes=5), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog-breeds.lock"]


def test_another_digest_than_the_known_one_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is another one: its SHA-256 is .*; run again$"):
        fetch_archive(site.archive(sha256="0" * 64), tmp_path)
    assert not (tmp_path / "dog-breeds").exists()


def test_another_digest_than_the_first_time_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "dog-breeds.zip.sha256").write_text("0" * 64)
    with pytest.raises(DatasetError, match=r"if you trust the new file, remove .*sha256 and run again"):
        fetch_archive(site.archive(), tmp_path)
    assert not (tmp_path / "dog-breeds").exists()


@pytest.mark.parametrize("url", ["http://example.com/dogImages.zip", "file:///etc/passwd", "ftp://127.0.0.1/x.zip"])
def test_datasets_come_over_https_only(site: Site, tmp_path: Path, url: str) -> None:
    with pytest.raises(DatasetError, match="over https only"):
        fetch_archive(site.archive(url=url), tmp_path)


def test_a_redirect_does_not_lead_away_from_https(site: Site, tmp_path: Path) -> None:
    site.redirect = "http://example.com/dogImages.zip"
    with pytest.raises(DatasetError, match=r"over https only, not from http://example\.com"):
        fetch_archive(site.archive(), tmp_path)


def test_a_full_disk_is_noticed_before_the_download(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="make room, or set SAGEMAKER_FLOWS_CACHE"):
        fetch_archive(site.archive(size_bytes=1 << 60), tmp_path)
    assert site.ranges == []


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "name",
    [
        "../outside.png",
        "dogImages/../../outside.png",
        "/tmp/outside.png",  # noqa: S108 - refused, never written
        "dogImages\\..\\..\\outside.png",
        "C:/outside.png",
        link("dogImages/train/001.Affenpinscher/link.png"),
    ],
    ids=str,
)
def test_an_archive_that_would_write_elsewhere_is_refused_whole(
    dogs: dict[str | zipfile.ZipInfo, bytes], tmp_path: Path, name: str | zipfile.ZipInfo
) -> None:
    with (
        serving(zipped({**dogs, name: b"/etc/passwd"})) as site,
        pytest.raises(DatasetError, match="would leave its folder or are no files"),
    ):
        fetch_archive(site.archive(), tmp_path / "cache")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["dog-breeds.lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_an_archive_that_would_fill_the_disk_is_refused(
    dogs: dict[str | zipfile.ZipInfo, bytes], tmp_path: Path
) -> None:
    with (
        serving(zipped({**dogs, "dogImages/train/bomb.png": bytes(10_000_000)})) as site,
        pytest.raises(DatasetError, match="that is no dataset"),
    ):
        fetch_archive(site.archive(), tmp_path)
    assert not (tmp_path / "dog-breeds").exists()


@pytest.mark.parametrize("body", [b"no zip file at all", b""])
def test_a_file_that_is_no_zip_is_refused_and_removed(tmp_path: Path, body: bytes) -> None:
    with serving(body) as site, pytest.raises(DatasetError, match="is no sound zip file"):
        fetch_archive(site.archive(), tmp_path)
    assert not list(tmp_path.glob("*.zip*"))


def test_a_damaged_member_is_noticed(dogs: dict[str | zipfile.ZipInfo, bytes], tmp_path: Path) -> None:
    body = bytearray(zipped(dogs))
    body[200] ^= 0xFF
    with serving(bytes(body)) as site, pytest.raises(DatasetError, match="is no sound zip file"):
        fetch_archive(site.archive(), tmp_path)
    assert not (tmp_path / "dog-breeds").exists()


def test_another_archive_of_the_same_size_is_refused(tmp_path: Path) -> None:
    with serving(zipped({"cats/1.png": b"x"})) as site, pytest.raises(DatasetError, match="has no folder dogImages"):
        fetch_archive(site.archive(), tmp_path)
    assert not (tmp_path / "dog-breeds").exists()


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_who_stops_the_unpacking_does_not_download_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(archives.shutil, "copyfileobj", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_archive(site.archive(), tmp_path)
    assert not (tmp_path / "dog-breeds").exists()
    fetch_archive(site.archive(), tmp_path)
    assert len(site.ranges) == 1


def test_what_macos_adds_is_not_unpacked(dogs: dict[str | zipfile.ZipInfo, bytes], tmp_path: Path) -> None:
    extra = {"__MACOSX/dogImages/._train": b"x", "dogImages/.DS_Store": b"x", "dogImages/train/": b""}
    with serving(zipped({**dogs, **extra})) as site:
        fetch_archive(site.archive(), tmp_path)
    assert len(contents(tmp_path / "dog-breeds")) == 6


def test_the_preset_is_the_well_known_file() -> None:
    assert DOG_BREEDS.url.startswith("https://")
    assert DOG_BREEDS.size_bytes == 1_132_023_110
