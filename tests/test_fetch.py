"""Fetching from a real HTTP server on loopback: resumed, refused, and never half installed."""

import errno
import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers import data
from helpers.results import ROOT
from runner import fetch

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


def manifest():
    """As if the images of these tests were the whole database."""
    return {
        hashlib.sha256(png(seed)).hexdigest(): f"{PLACE}/{name}.png"
        for seed, name in enumerate(NAMES)
    }


@pytest.fixture(autouse=True)
def database(monkeypatch):
    monkeypatch.setattr(data, "manifest", manifest)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.site`: content, with or without ranges, perhaps cut after some bytes."""

    def do_GET(self):
        site = self.server.site
        content, start = site.content, 0
        asked = self.headers["Range"]
        site.requests.append(asked)
        if site.ranges:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        if site.status != 200 or start >= len(content):
            return self.send_error(site.status if site.status != 200 else 416)
        self.send_response(206 if site.ranges else 200)
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
        content=archive, ranges=True, sized=True, kind="application/gzip",
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
    """The names installed; checks that nothing else is left but the lock."""
    assert {path.name for path in to.iterdir()} <= {"BreaKHis_v1", ".BreaKHis_v1.lock"}
    return sorted(path.stem for path in (to / "BreaKHis_v1").rglob("*.png"))


def test_the_database_is_installed_and_named(site, tmp_path, capsys):
    assert call(site, tmp_path / "new é") == 0
    assert installed(tmp_path / "new é") == NAMES
    said = capsys.readouterr().out
    assert f"{tmp_path / 'new é' / 'BreaKHis_v1'}: complete; 6 of 6 files are the originals" in said


def test_a_part_of_it_is_told_as_a_part(site, tmp_path, capsys):
    site.content = tar([(f"{PLACE}/{name}.png", png(n)) for n, name in enumerate(NAMES[:4])])
    assert call(site, tmp_path) == 0
    assert "partial; 4 of 6 files are the originals" in capsys.readouterr().out


def test_done_twice_it_does_nothing(site, tmp_path, capsys):
    assert call(site, tmp_path) == 0
    assert call(site, tmp_path) == 0
    assert len(site.requests) == 1
    assert "nothing to do" in capsys.readouterr().out


def test_a_cut_connection_is_resumed_by_the_next_call(site, tmp_path, capsys):
    half = len(site.content) // 2
    site.cuts = [half]
    assert call(site, tmp_path) == 1
    error = capsys.readouterr().err
    assert "broke off" in error
    assert "Call again" in error
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert call(site, tmp_path) == 0
    assert site.requests == ["bytes=0-", f"bytes={half}-"]
    assert installed(tmp_path) == NAMES


def test_a_cut_connection_is_tried_again_in_one_call(site, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    site.cuts = [len(site.content) // 3, 2 * len(site.content) // 3]
    assert call(site, tmp_path, tries=3) == 0
    assert len(site.requests) == 3
    assert installed(tmp_path) == NAMES


def test_without_range_support_it_begins_again(site, tmp_path):
    site.ranges, site.cuts = False, [len(site.content) // 2]
    assert call(site, tmp_path) == 1
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES


def test_a_file_that_changed_on_the_server_or_a_cut_unseen_is_refused_then_taken_whole(
    site, tmp_path, capsys
):
    site.cuts, site.sized = [len(site.content) // 2], False
    assert call(site, tmp_path) == 1  # the cut goes unnoticed until the archive is opened
    assert "damaged" in capsys.readouterr().err
    site.cuts, site.sized = [len(site.content) // 2], True
    assert call(site, tmp_path) == 1
    site.content = tar([(f"{PLACE}/{NAMES[n]}.png", png(n)) for n in (3, 2, 1, 0)])
    assert call(site, tmp_path) == 1
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES[:4]


def test_a_web_page_is_refused(site, tmp_path, capsys):
    site.content, site.kind = b"<html>Please log in</html>", "text/html; charset=utf-8"
    assert call(site, tmp_path) == 1
    assert "is a web page" in capsys.readouterr().err
    site.kind = "application/gzip"  # a page that claims to be an archive
    assert call(site, tmp_path) == 1
    assert "no archive" in capsys.readouterr().err
    assert not (tmp_path / "BreaKHis_v1").exists()


def test_errors_of_server_certificate_and_proxy_are_told(site, tmp_path, capsys, monkeypatch):
    def said():
        assert call(site, tmp_path) == 1
        return capsys.readouterr().err

    site.status = 404
    assert "404" in said()
    site.status = 407
    assert "HTTPS_PROXY" in said()
    plain, site.url = site.url, site.url.replace("http:", "https:")
    assert "REQUESTS_CA_BUNDLE" in said()
    site.url = "http://127.0.0.1:1/x.tar.gz"
    assert "broke off" in said()
    site.url = plain.replace("127.0.0.1", "example.org")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert "HTTPS_PROXY" in (told := said())
    assert "Call again" not in told


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :]


def harmed(sound, harm):
    plain, half = gzip.decompress(sound), len(sound) // 2
    return {
        "cut": sound[:half],
        "flipped": flip(sound, half),
        "header": flip(plain, plain.index(b"ustar", half)),  # tarfile alone would stop in peace
        "end": flip(sound, len(sound) - 6),  # the checksum of gzip
    }[harm]


@pytest.mark.parametrize("harm", ["cut", "flipped", "header", "end"])
def test_a_bad_download_is_removed_and_fetched_afresh(site, tmp_path, capsys, harm):
    sound, site.content = site.content, harmed(site.content, harm)
    assert call(site, tmp_path) == 1
    assert "archive" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {".BreaKHis_v1.lock"}
    site.content = sound
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES


@pytest.mark.parametrize("harm", ["cut", "header"])
def test_a_bad_archive_of_the_user_is_kept(site, tmp_path, capsys, harm):
    own = tmp_path / "to" / "BreaKHis_v1.tar.gz"  # put where it would have been downloaded
    own.parent.mkdir()
    own.write_bytes(harmed(site.content, harm))
    before = own.read_bytes()
    for url in (site.url, str(own), own.as_uri()):
        assert fetch.main(["--url", url, "--to", str(own.parent)]) == 1
        assert str(own) in capsys.readouterr().err
        assert own.read_bytes() == before
    assert site.requests == []


def zipped(folder):
    file = folder / "kaggle %20.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("Folds.csv", "fold,mag\n")
        for seed, name in enumerate(NAMES):
            archive.writestr(f"BreaKHis_v1/{PLACE}/{name}.png", png(seed))
    return file


@pytest.mark.parametrize("form", ["path", "address"])
def test_a_zip_that_is_here_is_taken_and_kept(tmp_path, form):
    file = zipped(tmp_path)
    url = str(file) if form == "path" else file.as_uri()
    assert fetch.main(["--url", url, "--to", str(tmp_path / "to")]) == 0
    assert installed(tmp_path / "to") == NAMES
    assert file.exists()


def test_a_path_to_nothing_is_told(tmp_path, capsys):
    assert fetch.main(["--url", str(tmp_path / "no.zip"), "--to", str(tmp_path)]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_what_is_not_the_database_is_refused_and_told_once(site, tmp_path, capsys):
    other = [(f"{PLACE}/{name}.png", png(9 + seed)) for seed, name in enumerate(NAMES)]
    site.content = tar([*other, ("readme.txt", b"x")])
    assert call(site, tmp_path) == 1
    said = capsys.readouterr().err
    assert "is not the database" in said
    assert said.count("other bytes than the database") == 1
    assert "6 files" in said
    assert {path.name for path in tmp_path.iterdir()} == {".BreaKHis_v1.lock"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../outside.png", b"x"),
        ("BreaKHis_v1/../../outside.png", b"x"),
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
    usage = SimpleNamespace(free=len(site.content) * 1.5 + fetch.RESERVE)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: usage)
    assert call(site, tmp_path) == 1  # room for the archive, but not for its content too
    said = capsys.readouterr().err
    assert "must be free" in said
    assert "--to" in said
    usage.free *= 2
    assert call(site, tmp_path) == 0


def test_a_disk_that_fills_up_keeps_the_download(site, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetch.tarfile.TarFile, "extract", full)
        assert call(site, tmp_path) == 1
    assert "Make room" in capsys.readouterr().err
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert call(site, tmp_path) == 0
    assert site.requests[1:] == [f"bytes={len(site.content)}-"]  # nothing is sent again


def child(site, to, before=""):
    """The fetcher in a process of its own, after the statements `before`."""
    program = (
        "import test_fetch\nfrom helpers import data\nfrom runner import fetch\n"
        f"data.manifest = test_fetch.manifest\n{before}\n"
        f"raise SystemExit(fetch.main(['--url', {site.url!r}, '--to', {str(to)!r}]))"
    )
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=paths, stderr=subprocess.PIPE, text=True
    )


def test_a_disk_that_takes_no_file_so_big_is_told(site, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    process = child(site, tmp_path, limit)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "takes no file so big" in said
    assert "--to" in said


@pytest.mark.parametrize("when", ["downloading", "unpacking"])
def test_a_killed_process_leaves_nothing_half_made(site, tmp_path, when):
    slow = ""
    if when == "unpacking":
        slow = (
            "import tarfile, time; whole = tarfile.TarFile.extract\n"
            "tarfile.TarFile.extract = lambda *a, **k: (time.sleep(0.2), whole(*a, **k))"
        )
    site.delay = 0.05 if when == "downloading" else 0
    process = child(site, tmp_path, slow)
    found = {"downloading": ".BreaKHis_v1-*", "unpacking": ".BreaKHis_v1.partial/**/*.png"}
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(found[when])):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (tmp_path / "BreaKHis_v1").exists()
    assert len(list(tmp_path.iterdir())) > 1
    assert call(site, tmp_path) == 0
    assert installed(tmp_path) == NAMES


def test_a_flat_archive_without_compression(site, tmp_path):
    site.content = tar([(f"train/benign/{NAMES[0]}.png", png(0))], mode="w:")
    assert call(site, tmp_path) == 0
    assert (tmp_path / "BreaKHis_v1" / "train" / "benign" / f"{NAMES[0]}.png").exists()


@pytest.mark.parametrize("what", ["other files", "a file", "a link to nothing"])
def test_a_target_that_is_taken_is_found_before_the_download(site, tmp_path, capsys, what):
    target = tmp_path / "BreaKHis_v1"
    if what == "other files":
        target.mkdir()
        (target / "thesis.txt").write_text("keep")
    elif what == "a file":
        target.write_text("keep")
    else:
        target.symlink_to(tmp_path / "gone")
    assert call(site, tmp_path) == 1
    assert "move it away" in capsys.readouterr().err
    assert os.path.lexists(target)
    assert not site.requests


def test_two_at_once_do_not_meet(site, tmp_path, capsys):
    with fetch.FileLock(tmp_path / ".BreaKHis_v1.lock"):
        assert call(site, tmp_path) == 1
    assert "wait for it" in capsys.readouterr().err
