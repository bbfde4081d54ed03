"""Decoding, and the cache: right pixels, built once, never half made, bounded in size."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

from helpers import images, results

SIZE = [20, 30]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BREAKHIS_CACHE_GB", raising=False)
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def index(folder):
    """Twelve noisy images of 60x40 px, with the two columns that the cache reads."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append((f"{number}.png", images.pixel_hash(pixels)))
    return pd.DataFrame(rows, columns=["path", "pixel_sha256"])


def test_fit_averages_over_areas():
    pixels = np.array([[0, 100], [200, 100]], np.uint8)[..., None].repeat(3, 2)
    assert images._fit(Image.fromarray(pixels), 1, 1).tolist() == [[[100, 100, 100]]]


def test_shrinking_by_a_whole_number_takes_the_same_mean():
    pixels = np.random.default_rng(1).integers(0, 256, (46, 70, 3), dtype=np.uint8)
    blocks = pixels.reshape(23, 2, 35, 2, 3).mean((1, 3), dtype=float)
    assert np.abs(images._fit(Image.fromarray(pixels), 23, 35) - blocks).max() <= 0.5
    assert np.array_equal(images._fit(Image.fromarray(pixels), 46, 70), pixels)


def test_fit_keeps_the_aspect_and_cuts_the_middle():
    pixels = np.zeros((456, 700, 3), np.uint8)
    pixels[:, :2] = pixels[:, -2:] = 255  # white edges, cut away: 700x456 is wider than 350x230
    fitted = images._fit(Image.fromarray(pixels), 230, 350)
    assert fitted.shape == (230, 350, 3)
    assert fitted.max() == 0


def test_a_circle_stays_round():
    y, x = np.mgrid[:460, :700]
    disc = ((y - 230) ** 2 + (x - 350) ** 2 < 100**2)[..., None] * np.uint8(255)
    fitted = images._fit(Image.fromarray(disc.repeat(3, 2)), 115, 115)[..., 0] > 127
    assert abs(int(fitted.any(0).sum()) - int(fitted.any(1).sum())) <= 1


def test_rows_are_in_the_order_of_the_index(folder, index):
    shuffled = index.sample(frac=1, random_state=3).reset_index(drop=True)
    loaded = images.load_images(folder, shuffled, SIZE)
    assert loaded.shape == (12, 20, 30, 3)
    assert loaded.dtype == np.uint8
    for row, path in enumerate(shuffled["path"]):
        pixels = np.asarray(Image.open(folder / path), float)
        blocks = pixels.reshape(20, 2, 30, 2, 3).mean((1, 3))
        assert np.abs(loaded[row] - blocks).max() <= 1


def test_second_call_opens_no_image(folder, index):
    first = images.load_images(folder, index, SIZE)
    for file in folder.iterdir():
        file.unlink()
    assert np.array_equal(images.load_images(folder, index, SIZE), first)
    with pytest.raises(ValueError, match="cannot be read"):
        images.load_images(folder, index, [10, 15])


def test_a_changed_image_is_noticed(folder, index):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "3.png")
    with pytest.raises(ValueError, match=r"3\.png: changed since it was indexed"):
        images.load_images(folder, index, SIZE)
    assert not list(images.cache_folder().glob("*.npy"))


def test_the_key_is_the_content(index):
    assert images.images_key(index, SIZE) == images.images_key(index.copy(), SIZE)
    others = [index[::-1], index[:-1], index.assign(pixel_sha256="0" * 64)]
    keys = {images.images_key(other, SIZE) for other in others} | {
        images.images_key(index, [30, 20])
    }
    assert len(keys - {images.images_key(index, SIZE)}) == 4


def test_a_damaged_cache_file_is_built_again(folder, index):
    loaded = np.array(images.load_images(folder, index, SIZE))
    (file,) = images.cache_folder().glob("*.npy")
    os.truncate(file, file.stat().st_size - 100)
    assert np.array_equal(images.load_images(folder, index, SIZE), loaded)


SLOW = """
import sys, time
import pandas as pd
from helpers import images
read = images.read_rgb
def slow(path):
    time.sleep(0.2)
    with open(sys.argv[2], "a") as log:
        log.write("x")
    return read(path)
images.read_rgb = slow
loaded = images.load_images(sys.argv[1], pd.read_csv(sys.argv[3], dtype=str), [20, 30])
print(int(loaded.sum()))
"""


@pytest.fixture
def start(folder, index, tmp_path):
    """Start a process that builds the cache slowly and counts the images that it opens."""
    index.to_csv(tmp_path / "index.csv", index=False)
    command = [sys.executable, "-c", SLOW, folder, tmp_path / "log", tmp_path / "index.csv"]
    started = []

    def run():
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_two_at_once_build_it_once(start, folder, index, tmp_path):
    processes = [start(), start()]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len((tmp_path / "log").read_text()) == len(index)


def test_killed_half_way_leaves_nothing_that_is_believed(start, folder, index, tmp_path):
    process, log = start(), tmp_path / "log"
    deadline = time.monotonic() + 60
    while not (log.exists() and 2 <= len(log.read_text()) < 10):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = [file.suffix for file in images.cache_folder().iterdir()]
    assert ".partial" in left
    assert ".npy" not in left
    loaded = images.load_images(folder, index, SIZE)
    pixels = np.asarray(Image.open(folder / "11.png"), float)
    assert np.abs(loaded[11] - pixels.reshape(20, 2, 30, 2, 3).mean((1, 3))).max() <= 1
    assert not list(images.cache_folder().glob("*.partial"))


def test_over_the_cap_the_oldest_goes(folder, index, monkeypatch):
    sizes = ([20, 30], [20, 31], [20, 32])
    files = []
    for age, size in zip((300, 100, 200), sizes, strict=True):
        files.append(Path(images.load_images(folder, index, size).filename))
        then = time.time() - age
        os.utime(files[-1], (then, then))
    foreign = images.cache_folder() / "my-results.npy"
    foreign.write_bytes(b"not of the cache")
    monkeypatch.setenv("BREAKHIS_CACHE_GB", str(68_000 / 1e9))
    images.load_images(folder, index, [20, 33])
    assert [file.exists() for file in files] == [False, True, False]
    assert foreign.exists()
    monkeypatch.setenv("BREAKHIS_CACHE_GB", str(10_000 / 1e9))
    with pytest.raises(OSError, match="BREAKHIS_CACHE_GB"):
        images.load_images(folder, index, [20, 34])


def test_too_little_disk_is_said_before_work_starts(folder, index, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(images.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="make clean-cache"):
        images.load_images(folder, index, SIZE)


def test_clean_removes_the_cache_and_nothing_else(folder, index):
    images.load_images(folder, index, SIZE)
    keep = images.cache_folder() / "thesis.txt"
    keep.write_text("keep")
    assert images.clean() > 12 * 20 * 30 * 3
    assert not list(images.cache_folder().glob("*.npy"))
    assert keep.exists()


def encoded(mode, alpha=None, form="PNG"):
    """The pixels of one image and the bytes of a file of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image, buffer = Image.fromarray(pixels).convert(mode), io.BytesIO()
    if alpha is not None:
        image.putalpha(alpha)
    image.save(buffer, format=form)
    return pixels, buffer.getvalue()


def test_full_alpha_is_as_good_as_none():
    for mode, alpha in (("RGB", None), ("RGBA", 255)):
        pixels, content = encoded(mode, alpha)
        assert np.array_equal(images.decode(content), pixels)
    with pytest.raises(ValueError, match="transparent pixels"):
        images.decode(encoded("RGBA", 254)[1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (encoded("RGB", form="JPEG")[1], "JPEG copy.*cannot be used"),
        (encoded("RGB", form="BMP")[1], "not a PNG file"),
        (encoded("L")[1], "8-bit grey, not 8-bit RGB"),
        (encoded("I;16")[1], "16-bit grey, not 8-bit RGB"),
        (encoded("RGB")[1][:-12], "truncated or damaged"),
        (encoded("RGB")[1][:20], "truncated or damaged"),
    ],
)
def test_other_files_are_refused_with_the_reason(content, reason):
    with pytest.raises(ValueError, match=reason):
        images.decode(content)


def test_an_unreadable_path_is_a_reason(tmp_path):
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(ValueError, match="cannot be read"):
            images.read_rgb(path)


def test_one_image_alone(folder, index):
    assert images.load_images(folder, index[:1], SIZE).shape == (1, 20, 30, 3)


def test_the_cache_needs_no_call_that_windows_lacks(folder, index, monkeypatch):
    expected = np.array(images.load_images(folder, index, SIZE))
    images.clean()
    for name in ("pwrite", "posix_fallocate", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    assert np.array_equal(images.load_images(folder, index, SIZE), expected)


def test_any_array_is_cached_by_everything_it_depends_on(folder):
    def fill(array):
        calls.append(array.shape)
        array[:] = len(calls)

    calls = []
    first = images.cached("maps", ["a", 1], (2, 3), np.float16, fill)
    assert np.array_equal(images.cached("maps", ["a", 1], (2, 3), np.float16, fill), first)
    images.cached("maps", ["a", 2], (2, 3), np.float16, fill)
    images.cached("features", ["a", 1], (2, 3), np.float16, fill)
    assert len(calls) == 3
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_a_failed_fill_leaves_nothing(folder):
    def fail(array):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        images.cached("maps", [], (2, 3), np.float16, fail)
    assert [file.suffix for file in images.cache_folder().iterdir()] == [".lock"]


@pytest.mark.parametrize("size", ["20GB", "many", "nan"])
def test_a_wrong_size_of_the_cache_names_the_variable(folder, index, monkeypatch, size):
    monkeypatch.setenv("BREAKHIS_CACHE_GB", size)
    with pytest.raises((ValueError, OSError), match=f"BREAKHIS_CACHE_GB.*{size}"):
        images.load_images(folder, index, SIZE)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), NotImplementedError("no flock here")]
)
def test_a_lock_that_cannot_be_had_names_the_file_and_the_cure(folder, index, monkeypatch, error):
    def refuse(self, *arguments, **options):
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(OSError, match=r"The lock .*images-\w+\.lock cannot be had.*BREAKHIS_CACHE"):
        images.load_images(folder, index, SIZE)


def test_a_cache_that_is_there_is_read_without_a_lock(folder, index, monkeypatch):
    expected = np.array(images.load_images(folder, index, SIZE))
    monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: pytest.fail("locked"))
    assert np.array_equal(images.load_images(folder, index, SIZE), expected)


def test_waiting_for_a_lock_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "PATIENCE", 0.05)
    held, done = FileLock(tmp_path / "x.lock", thread_local=False), threading.Event()

    def hold():
        with held:
            started.set()
            done.wait(10)

    started = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    started.wait(10)
    threading.Timer(0.3, done.set).start()
    with results.locked(tmp_path / "x.lock", "go elsewhere"):
        thread.join()
    said = capsys.readouterr().err
    assert f"another process holds {tmp_path / 'x.lock'}" in said
    assert "go elsewhere" in said
