"""The cache: right pixels, built once, never believed when half made, bounded in size."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import cache
from helpers.data.images import pixel_hash

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
        rows.append((f"{number}.png", pixel_hash(pixels)))
    return pd.DataFrame(rows, columns=["path", "pixel_sha256"])


def test_fit_averages_over_areas():
    pixels = np.array([[0, 100], [200, 100]], np.uint8)[..., None].repeat(3, 2)
    assert cache.fit(Image.fromarray(pixels), [1, 1]).tolist() == [[[100, 100, 100]]]


def test_shrinking_by_a_whole_number_takes_the_same_mean():
    pixels = np.random.default_rng(1).integers(0, 256, (46, 70, 3), dtype=np.uint8)
    blocks = pixels.reshape(23, 2, 35, 2, 3).mean((1, 3), dtype=float)
    assert np.abs(cache.fit(Image.fromarray(pixels), [23, 35]) - blocks).max() <= 0.5
    assert np.array_equal(cache.fit(Image.fromarray(pixels), [46, 70]), pixels)


def test_fit_keeps_the_aspect_and_cuts_the_middle():
    pixels = np.zeros((456, 700, 3), np.uint8)
    pixels[:, :2] = pixels[:, -2:] = 255  # white edges, cut away: 700x456 is wider than 350x230
    fitted = cache.fit(Image.fromarray(pixels), [230, 350])
    assert fitted.shape == (230, 350, 3)
    assert fitted.max() == 0


def test_a_circle_stays_round():
    y, x = np.mgrid[:460, :700]
    disc = ((y - 230) ** 2 + (x - 350) ** 2 < 100**2)[..., None] * np.uint8(255)
    fitted = cache.fit(Image.fromarray(disc.repeat(3, 2)), [115, 115])[..., 0] > 127
    assert abs(int(fitted.any(0).sum()) - int(fitted.any(1).sum())) <= 1


def test_rows_are_in_the_order_of_the_index(folder, index):
    shuffled = index.sample(frac=1, random_state=3).reset_index(drop=True)
    images = cache.load_images(folder, shuffled, SIZE)
    assert images.shape == (12, 20, 30, 3)
    assert images.dtype == np.uint8
    for row, path in enumerate(shuffled["path"]):
        pixels = np.asarray(Image.open(folder / path), float)
        blocks = pixels.reshape(20, 2, 30, 2, 3).mean((1, 3))
        assert np.abs(images[row] - blocks).max() <= 1


def test_second_call_opens_no_image(folder, index):
    first = cache.load_images(folder, index, SIZE)
    for file in folder.iterdir():
        file.unlink()
    assert np.array_equal(cache.load_images(folder, index, SIZE), first)
    with pytest.raises(ValueError, match="cannot be read"):
        cache.load_images(folder, index, [10, 15])


def test_a_changed_image_is_noticed(folder, index):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "3.png")
    with pytest.raises(ValueError, match=r"3\.png changed since it was indexed"):
        cache.load_images(folder, index, SIZE)
    assert not list(cache.cache_folder().glob("*.npy"))


def test_the_key_is_the_content(index):
    assert cache.images_key(index, SIZE) == cache.images_key(index.copy(), SIZE)
    others = [index[::-1], index[:-1], index.assign(pixel_sha256="0" * 64)]
    keys = {cache.images_key(other, SIZE) for other in others} | {cache.images_key(index, [30, 20])}
    assert len(keys - {cache.images_key(index, SIZE)}) == 4


def test_a_damaged_cache_file_is_built_again(folder, index):
    images = np.array(cache.load_images(folder, index, SIZE))
    (file,) = cache.cache_folder().glob("*.npy")
    os.truncate(file, file.stat().st_size - 100)
    assert np.array_equal(cache.load_images(folder, index, SIZE), images)


SLOW = """
import sys, time
import pandas as pd
from helpers import cache
read = cache.read_rgb
def slow(path):
    time.sleep(0.2)
    with open(sys.argv[2], "a") as log:
        log.write("x")
    return read(path)
cache.read_rgb = slow
images = cache.load_images(sys.argv[1], pd.read_csv(sys.argv[3], dtype=str), [20, 30])
print(int(images.sum()))
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
    left = [file.suffix for file in cache.cache_folder().iterdir()]
    assert ".partial" in left
    assert ".npy" not in left
    images = cache.load_images(folder, index, SIZE)
    pixels = np.asarray(Image.open(folder / "11.png"), float)
    assert np.abs(images[11] - pixels.reshape(20, 2, 30, 2, 3).mean((1, 3))).max() <= 1
    assert not list(cache.cache_folder().glob("*.partial"))


def test_over_the_cap_the_oldest_goes(folder, index, monkeypatch):
    sizes = ([20, 30], [20, 31], [20, 32])
    files = []
    for age, size in zip((300, 100, 200), sizes, strict=True):
        cache.load_images(folder, index, size)
        files.append(cache.cache_folder() / f"images-{cache.images_key(index, size)}.npy")
        then = time.time() - age
        os.utime(files[-1], (then, then))
    foreign = cache.cache_folder() / "mine.npy"
    foreign.write_bytes(b"not of the cache")
    monkeypatch.setenv("BREAKHIS_CACHE_GB", str(68_000 / 1e9))
    cache.load_images(folder, index, [20, 33])
    assert [file.exists() for file in files] == [False, True, False]
    assert foreign.exists()
    monkeypatch.setenv("BREAKHIS_CACHE_GB", str(10_000 / 1e9))
    with pytest.raises(OSError, match="BREAKHIS_CACHE_GB"):
        cache.load_images(folder, index, [20, 34])


def test_too_little_disk_is_said_before_work_starts(folder, index, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match="make clean-cache"):
        cache.load_images(folder, index, SIZE)


def test_clean_removes_the_cache_and_nothing_else(folder, index):
    cache.load_images(folder, index, SIZE)
    keep = cache.cache_folder() / "thesis.txt"
    keep.write_text("keep")
    assert cache.clean() > 12 * 20 * 30 * 3
    assert not list(cache.cache_folder().glob("*.npy"))
    assert keep.exists()
