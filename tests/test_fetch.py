"""Fetching from a real HTTP server on loopback: resumed, refused, and never half installed."""

import gzip
import http.server
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers import fetch
from helpers.data import download
from helpers.results import ROOT

NAMES = [f"SOB_B_A-14-22549AB-40-{number:03d}" for number in range(1, 7)]
PLACE = "BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X"


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (46, 70, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((700, 460)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(entries, mode="w:gz"):
    """Return an archive of (name, content or TarInfo type, link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive():
    return tar([(f"{PLACE}/{name}.png", png(seed)) for seed, name in enumerate(NAMES)])


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.site``: content, with or without ranges, perhaps cut after some bytes."""

    def do_GET(self):
        site = self.server.site
        content, start = site.content, 0
        asked = self.headers.get("Range")
        site.requests.append(asked)
        fresh = self.headers.get("If-Range") in (None, site.tag)
        if asked and site.ranges and fresh:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        if site.status != 200:
            return self.send_error(site.status)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if site.tag:
            self.send_header("ETag", site.tag)
        if site.sized:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", site.kind)
        self.end_headers()
        cut = site.cuts.pop(0) if site.cuts else None
        for position in range(start, len(content[:cut]), 65536):
            self.wfile.write(content[position : min(position + 65536, cut or len(content))])
            time.sleep(site.delay)
        return self.close_connection

    def log_message(self, *_):
        pass


@pytest.fixture
def site(archive):
    """A server on loopback; its attributes say how it behaves."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = SimpleNamespace(
        content=archive, ranges=True, tag='"v1"', sized=True, kind="application/gzip",
        status=200, cuts=[], delay=0, requests=[],
        url=f"http://127.0.0.1:{server.server_port}/BreaKHis_v1.tar.gz",
    )  # fmt: skip
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.site
    server.shutdown()
    server.server_close()


def call(site, to, tries=1):
    return fetch.main(["--url", site.url, "--to", str(to), "--tries", str(tries)])


def installed(to):
    """Return the names installed, and check that nothing else is left but the lock."""
    assert {path.name for path in to.iterdir()} <= {"BreaKHis_v1", ".BreaKHis_v1.lock"}
    return sorted(path.stem for path in (to / "BreaKHis_v1").rglob("*.png"))


def test_a_part_of_the_database_is_installed_and_named(site, tmp_path, capsys):
    assert call(site, tmp_path / "new é") == 0
    assert installed(tmp_path / "new é") == NAMES
    output = capsys.readouterr().out
    assert "partial, 6 sound images of 7,909" in output
    assert "A-14-22549AB at 40X has 6 images, the database has 29" in output


def test_done_twice_it_does_nothing(site, tmp_path, capsys):
    assert call(site, tmp_path) == 0
    assert call(site, tmp_path) == 0
    assert len(site.requests) == 1
    assert "6 images: nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("tag", ['"v1"', None])
def test_a_cut_connection_is_resumed_by_the_next_call(site, tmp_path, capsys, tag):
    site.tag, half = tag, len(site.content) // 2
    site.cuts = [half]
    assert call(site, tmp_path) == 1
    error = capsys.readouterr().err
    assert "broke off" in error
    assert "Call again" in error
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert call(site, tmp_path) == 0
    assert site.requests == [None, f"bytes={half}-"]
    assert installed(tmp_path) == NAMES


def test_a_cut_connection_is_tried_again_in_one_call(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    site.cuts = [len(site.content) // 3, 2 * len(site.content) // 3]
    assert call(site, tmp_path, tries=3) == 0
    assert len(site.requests) == 3
    assert installed(tmp_path) == NAMES


def test_without_range_support_it_begins_again(site, tmp_path):
    site.ranges, site.cuts = False, [len(site.content) // 2]
    assert call(site, tmp_path) == 1
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES


def test_without_a_stated_length(site, tmp_path):
    site.sized, site.cuts = False, [len(site.content) // 2]
    assert call(site, tmp_path) == 1  # the cut goes unnoticed until the archive is opened
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES


@pytest.mark.parametrize("tag", ['"v2"', None])
def test_a_file_that_changed_on_the_server_is_taken_whole(site, tmp_path, tag, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    site.tag, site.cuts = tag and '"v1"', [len(site.content) // 2]
    assert call(site, tmp_path) == 1
    site.tag = tag
    site.content = tar([(f"{PLACE}/{name}.png", png(9)) for name in NAMES[:4]])
    assert call(site, tmp_path, tries=2) == 0
    assert installed(tmp_path) == NAMES[:4]


def test_a_web_page_is_refused(site, tmp_path, capsys):
    site.content, site.kind = b"<html>Please log in</html>", "text/html; charset=utf-8"
    assert call(site, tmp_path) == 1
    assert "a web page, not an archive" in capsys.readouterr().err
    site.kind = "application/gzip"  # a page that claims to be an archive
    assert call(site, tmp_path) == 1
    assert "damaged, cut short, or none" in capsys.readouterr().err
    assert not (tmp_path / "BreaKHis_v1").exists()


def test_an_error_of_the_server_is_told(site, tmp_path, capsys):
    site.status = 404
    assert call(site, tmp_path) == 1
    assert "404" in capsys.readouterr().err
    site.url = "http://127.0.0.1:1/x.tar.gz"
    assert call(site, tmp_path) == 1
    assert "broke off after 0.0 MB" in capsys.readouterr().err


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :]


@pytest.mark.parametrize("harm", ["cut", "flipped", "header", "end"])
def test_a_bad_archive_is_removed_and_fetched_afresh(site, tmp_path, capsys, harm):
    sound, half = site.content, len(site.content) // 2
    plain = gzip.decompress(sound)
    site.content = {
        "cut": sound[:half],
        "flipped": flip(sound, half),
        "header": flip(plain, plain.index(NAMES[3].encode())),  # tarfile alone would stop in peace
        "end": flip(sound, len(sound) - 6),  # the checksum of gzip
    }[harm]
    assert call(site, tmp_path) == 1
    assert "archive" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {".BreaKHis_v1.lock"}
    site.content = sound
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES


def test_a_damaged_image_inside_is_named(site, tmp_path, capsys):
    site.content = tar([(f"{PLACE}/{NAMES[0]}.png", png(1)), (f"{PLACE}/{NAMES[1]}.png", b"")])
    assert call(site, tmp_path) == 1
    assert f"{NAMES[1]}.png: empty file" in capsys.readouterr().err
    assert not (tmp_path / "BreaKHis_v1").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../outside.png", b"x"),
        ("BreaKHis_v1/../../outside.png", b"x"),
        ("/tmp/outside.png", b"x"),
        ("BreaKHis_v1/link.png", (tarfile.SYMTYPE, "/etc/passwd")),
        ("BreaKHis_v1/link.png", (tarfile.LNKTYPE, "../../outside.png")),
        ("BreaKHis_v1/device", (tarfile.CHRTYPE, "")),
        ("BreaKHis_v1/pipe", (tarfile.FIFOTYPE, "")),
    ],
)
def test_nothing_leaves_the_folder(site, tmp_path, capsys, name, content):
    site.content = tar([(name, content), (f"{PLACE}/{NAMES[0]}.png", png(1))])
    to = tmp_path / "a" / "b"
    assert call(site, to) == 1
    assert "unsafe" in capsys.readouterr().err
    assert not (to / "BreaKHis_v1").exists()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".BreaKHis_v1.lock"]


def test_too_little_disk_is_said_first(site, tmp_path, capsys, monkeypatch):
    usage = SimpleNamespace(free=len(site.content) * 1.5 + download.RESERVE)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    assert call(site, tmp_path) == 1  # room for the archive, but not for its content too
    assert "must be free" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tar.gz*"))
    usage.free *= 2
    assert call(site, tmp_path) == 0


def test_a_disk_that_fills_up_keeps_the_download(site, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetch.tarfile.TarFile, "extract", full)
        assert call(site, tmp_path) == 1
    assert "Make room" in capsys.readouterr().err
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert call(site, tmp_path) == 0
    assert len(site.requests) == 1


def test_an_archive_that_no_disk_takes_is_not_kept(site, tmp_path, capsys):
    whole = site.content
    site.content = tar([(f"BreaKHis_v1/{'x' * 300}.png", png(1))])  # ENAMETOOLONG
    assert call(site, tmp_path) == 1
    assert "The archive is damaged" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tar.gz*"))
    site.content = whole
    assert call(site, tmp_path) == 0
    assert len(site.requests) == 2


def test_too_little_disk_on_the_way_keeps_the_download(site, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:  # as if others filled the disk meanwhile
        patch.setattr(fetch, "_unpack_member", lambda *a: download.check_disk(tmp_path, 1e18))
        assert call(site, tmp_path) == 1
    said = capsys.readouterr().err
    assert "must be free" in said
    assert "Make room" in said
    assert call(site, tmp_path) == 0
    assert len(site.requests) == 1


@pytest.mark.parametrize("when", ["downloading", "unpacking"])
def test_a_killed_process_leaves_nothing_half_made(site, tmp_path, when):
    slow = "import time; from helpers import fetch; whole = fetch._unpack_member\n"
    if when == "unpacking":
        slow += "fetch._unpack_member = lambda *a: (time.sleep(0.2), whole(*a))\n"
    site.delay = 0.05 if when == "downloading" else 0
    program = slow + f"fetch.main(['--url', {site.url!r}, '--to', {str(tmp_path)!r}])"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    waited = tmp_path / ("BreaKHis_v1.tar.gz.part" if when == "downloading" else "x")
    deadline = time.monotonic() + 60
    while not (waited.exists() or list(tmp_path.glob(".BreaKHis_v1.partial/**/*.png"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert len(list(tmp_path.iterdir())) > 1
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES


def test_a_flat_archive_and_one_without_compression(site, tmp_path):
    site.content = tar([(f"train/benign/{NAMES[0]}.png", png(1))], mode="w:")
    assert call(site, tmp_path) == 0
    assert (tmp_path / "BreaKHis_v1" / "train" / "benign" / f"{NAMES[0]}.png").exists()


def test_a_folder_that_is_no_data_is_left_alone(site, tmp_path, capsys):
    (tmp_path / "BreaKHis_v1").mkdir()
    (tmp_path / "BreaKHis_v1" / "thesis.txt").write_text("keep")
    assert call(site, tmp_path) == 1
    assert "move it away" in capsys.readouterr().err
    assert not site.requests


def test_two_at_once_do_not_meet(site, tmp_path, capsys):
    tmp_path.mkdir(exist_ok=True)
    with fetch.FileLock(tmp_path / ".BreaKHis_v1.lock"):
        assert call(site, tmp_path) == 1
    assert "wait for it" in capsys.readouterr().err
