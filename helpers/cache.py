"""Decoded images in one memory-mapped array a size, so that training never opens a PNG.

The cache is data/cache, or the folder that BREAKHIS_CACHE names. It holds at most BREAKHIS_CACHE_GB
gigabytes (20 by default): what was not used for longest is removed first. ``make clean-cache``
empties it.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from PIL import Image

from helpers.data.images import parallel, pixel_hash, read_rgb
from helpers.results import ROOT, resolve

PREFIXES = ("images-", "features-", "maps-", "seen-")  # of the file names in the cache
RESERVE = 200e6  # bytes of the disk that the cache leaves free


def cache_folder() -> Path:
    """Return the cache folder, data/cache unless BREAKHIS_CACHE names another, and make it."""
    folder = resolve(os.environ.get("BREAKHIS_CACHE") or ROOT / "data" / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def images_key(index: pd.DataFrame, size: Sequence[int]) -> str:
    """Return a key of the content: the pixels of the rows, in order, and the size."""
    height, width = size
    text = f"images 2 {height}x{width}\n" + "\n".join(index["pixel_sha256"])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fit(image: Image.Image, size: Sequence[int]) -> np.ndarray:
    """Scale an image to cover ``size`` with its aspect kept, and cut what overhangs, centred.

    size: [height, width], px. Returns uint8 (height, width, 3). Shrinking averages over areas;
    enlarging interpolates.
    """
    height, width = size
    scale = max(height / image.height, width / image.width)
    high, wide = height / scale, width / scale
    top, left = (image.height - high) / 2, (image.width - wide) / 2
    box = (left, top, left + wide, top + high)
    if (1 / scale).is_integer() and all(side.is_integer() for side in box):
        return np.asarray(image.reduce(round(1 / scale), tuple(map(int, box))))  # the same, faster
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(image.resize((width, height), method, box))


def load_images(folder: str | Path, index: pd.DataFrame, size: Sequence[int]) -> np.memmap:
    """Return the images of ``index`` at ``size``, from the cache, which is built where it is not.

    size: [height, width], px. Returns a read-only uint8 array (n, height, width, 3), 0 to 255,
    memory-mapped, its rows in the order of ``index``. An image that is no longer the one that was
    indexed is a ValueError.
    """
    height, width = (int(side) for side in size)
    shape = (len(index), height, width, 3)
    file = cache_folder() / f"images-{images_key(index, size)}.npy"
    return cached(file, shape, np.uint8, lambda target: _fill(target, folder, index, size))


def cached(file: Path, shape: tuple, dtype: type, fill: Callable[[Path], None]) -> np.memmap:
    """Open the array in ``file``; where there is none, let ``fill`` make it, once.

    ``fill(path)`` writes the numbers into an .npy file whose header is there already. Of two
    processes that start at once, one builds and the other waits for its lock. A killed process
    leaves a ``.partial`` file, which is never believed. Returns a read-only memory map.
    """
    with FileLock(file.with_suffix(".lock")):
        array = _open(file, shape, dtype)
        if array is None:
            make_room(file.parent, int(np.prod(shape)) * np.dtype(dtype).itemsize)
            _build(file, shape, dtype, fill)
            array = np.load(file, mmap_mode="r")
        os.utime(file)
        return array


def _open(file: Path, shape: tuple, dtype: type) -> np.memmap | None:
    """Return the array, or None where the file is missing, cut short or of another shape."""
    try:
        array = np.load(file, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return array if array.shape == tuple(shape) and array.dtype == dtype else None


def _build(file: Path, shape: tuple, dtype: type, fill: Callable[[Path], None]) -> None:
    partial = file.with_suffix(".partial")
    try:
        np.lib.format.open_memmap(partial, "w+", dtype, shape)
        fill(partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def make_room(folder: Path, n_bytes: int) -> None:
    """Make room for ``n_bytes``: remove what killed processes left, then what is oldest in use.

    Raises OSError where ``n_bytes`` exceed the cap, or the disk has not so much space.
    """
    cap = float(os.environ.get("BREAKHIS_CACHE_GB") or 20) * 1e9
    if n_bytes > cap:
        raise OSError(
            f"The cache may hold {cap / 1e9:g} GB and {n_bytes / 1e9:.2f} GB are needed: choose a "
            "smaller IMAGE_SIZE or a larger BREAKHIS_CACHE_GB."
        )
    for left in folder.glob("*.partial"):
        _remove_unless_locked(left)
    arrays = [file for file in folder.glob("*.npy") if file.name.startswith(PREFIXES)]
    arrays.sort(key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in arrays)
    for file in arrays:
        if total + n_bytes <= cap:
            break
        size = file.stat().st_size
        total -= size if _remove_unless_locked(file) else 0
    free = shutil.disk_usage(folder).free
    if free < n_bytes + RESERVE:
        raise OSError(
            f"{n_bytes / 1e9:.2f} GB are needed in {folder}, and {free / 1e9:.2f} GB are free: "
            "run make clean-cache, or set BREAKHIS_CACHE to a folder on another disk."
        )


def _remove_unless_locked(file: Path) -> bool:
    """Remove a file of the cache that no process is building or opening."""
    try:
        with FileLock(file.with_suffix(".lock"), timeout=0):
            file.unlink(missing_ok=True)
            return True
    except Timeout:
        return False


def _fill(target: Path, folder: str | Path, index: pd.DataFrame, size: Sequence[int]) -> None:
    """Decode, check, fit and write each image at its place; holds one image a thread."""
    folder = resolve(folder)
    n_bytes = int(np.prod(size)) * 3
    start = target.stat().st_size - n_bytes * len(index)
    with target.open("r+b") as file:

        def store(item: tuple[int, str, str]) -> None:
            row, path, expected = item
            try:
                image = read_rgb(folder / path)
            except ValueError as error:
                raise ValueError(f"{folder / path}: {error}. Run 01_eda again.") from None
            if pixel_hash(np.asarray(image)) != expected:
                raise ValueError(f"{folder / path} changed since it was indexed: run 01_eda again.")
            written = os.pwrite(file.fileno(), fit(image, size), start + row * n_bytes)
            if written != n_bytes:
                raise OSError(f"The disk of {target.parent} is full: run make clean-cache.")

        rows = zip(range(len(index)), index["path"], index["pixel_sha256"], strict=True)
        parallel(store, rows, f"Decoding to {size[1]}x{size[0]} px")


def clean() -> int:
    """Remove the cache's arrays that are not in use; return the bytes set free.

    Nothing else in the folder is touched, so that a wrong BREAKHIS_CACHE does no harm.
    """
    files = [file for kind in ("*.npy", "*.partial") for file in cache_folder().glob(kind)]
    sizes = [(file.stat().st_size, file) for file in files if file.name.startswith(PREFIXES)]
    return sum(size for size, file in sizes if _remove_unless_locked(file))


if __name__ == "__main__":
    print(f"{cache_folder()}: {clean() / 1e6:,.0f} MB removed")
