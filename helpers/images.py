"""Image files decoded strictly, and the one cache on disk: an array a file, memory-mapped.

The cache is data/cache, or the folder that BREAKHIS_CACHE names, and holds at most 20 gigabytes, or
BREAKHIS_CACHE_GB: the oldest in use goes first. ``python -m helpers.images`` empties it.
"""

import hashlib
import io
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from helpers.results import locked, resolve

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
PHANTOM_MARK = "breakhis-phantom"  # text at the head of each PNG of the phantom
RESERVE = 200e6  # bytes of the disk that the cache leaves free
CACHED = "*-" + 16 * "[0-9a-f]"  # names of the cache's files, without suffix: kind and key


def thread_map(function: Callable, items: Iterable, desc: str) -> list:
    """Map ``function`` over ``items`` in threads (decoding and hashing release the interpreter).

    Results are in order. Progress shows on a terminal only: a notebook would keep each step.
    """
    items = list(items)  # not by tqdm.contrib: it warns in every notebook without ipywidgets
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    options = {"desc": desc, "total": len(items), "delay": 1, "leave": False, "disable": None}
    with ThreadPoolExecutor(len(cores)) as pool:
        return list(tqdm(pool.map(function, items), **options))


def list_images(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Find the image files below ``folder``; names that start with a dot are not looked at.

    Links are followed, each real folder once. Returns the paths, sorted, and a list of (path
    relative to ``folder``, reason) for what could not be entered.
    """
    found, refused, seen = [], [], set()

    def cannot_list(error: OSError) -> None:
        refused.append((relative(Path(error.filename), folder), f"cannot list: {error.strerror}"))

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=cannot_list):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(parent) / name for name in files if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found), refused


def relative(path: Path, folder: Path) -> str:
    """Return ``path`` relative to ``folder`` with forward slashes, safe to print and to store."""
    text = path.relative_to(folder).as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file; ValueError with the reason alone where there are none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe without a writer would never end
            raise ValueError("cannot be read: not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an 8-bit RGB PNG in full: uint8 (height, width, 3), 0 to 255; errors of `decode`."""
    return decode(read_bytes(Path(path)))


def decode(content: bytes) -> np.ndarray:
    """Decode the bytes of an 8-bit RGB PNG: uint8 (height, width, 3); full alpha is left out.

    Anything else is a ValueError with the reason alone: empty, truncated, a damaged checksum,
    another format, or another kind of pixel (grey, palette, transparent, 16 bits).
    """
    if not content:
        raise ValueError("empty file (0 bytes)")
    if content.startswith(b"\xff\xd8\xff"):
        raise ValueError("a JPEG copy, whose pixels are not the database's: it cannot be used")
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("not a PNG file")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()  # checksums of all chunks, and that the file has its end
        depth, colour = content[24], COLOUR_TYPES.get(content[25], "unknown")
        if depth != 8 or colour not in ("RGB", "RGBA"):
            raise ValueError(f"{depth}-bit {colour}, not 8-bit RGB")
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"truncated or damaged PNG ({error})") from None
    if (pixels[..., 3:] < 255).any():
        raise ValueError("RGBA with transparent pixels, not 8-bit RGB")
    return pixels[..., :3]


def is_marked(file: Path) -> bool:
    """Return whether a PNG says at its head that it is of the phantom."""
    with file.open("rb") as handle:
        return PHANTOM_MARK.encode() in handle.read(256)


def pixel_hash(pixels: np.ndarray) -> str:
    """Return the SHA-256 of size and pixels: equal for equal images, however they were packed."""
    digest = hashlib.sha256(f"{pixels.shape[1]}x{pixels.shape[0]} RGB8".encode())
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()


def images_key(index: pd.DataFrame, size: Sequence[int]) -> str:
    """Return a key of the content: the pixels of the rows, in order, and the size."""
    height, width = size
    text = f"images 2 {height}x{width}\n" + "\n".join(index["pixel_sha256"])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_images(folder: str | Path, index: pd.DataFrame, size: Sequence[int]) -> np.memmap:
    """Return the images of ``index`` at ``size``, from the cache, which is built where it is not.

    size: [height, width], px. Returns a read-only uint8 array (n, height, width, 3), 0 to 255,
    memory-mapped, rows as in ``index``. ValueError where an image is not the one that was indexed.
    """
    height, width = (int(side) for side in size)
    rows = list(zip(index["path"], index["pixel_sha256"], strict=True))

    def fill(array: np.ndarray) -> None:
        def store(row: int) -> None:
            path, expected = rows[row]
            try:
                pixels = read_rgb(resolve(folder) / path)
                if pixel_hash(pixels) != expected:
                    raise ValueError("changed since it was indexed")
            except ValueError as error:
                raise ValueError(f"{resolve(folder) / path}: {error}. Run 01_eda again.") from None
            array[row] = _fit(Image.fromarray(pixels), height, width)

        thread_map(store, range(len(rows)), f"Decoding to {width}x{height} px")

    shape = (len(rows), height, width, 3)
    return cached("images", [images_key(index, (height, width))], shape, np.uint8, fill)


def _fit(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Scale to cover a size with the aspect kept, by averages over areas, and cut the overhang."""
    scale = max(height / image.height, width / image.width)
    high, wide = height / scale, width / scale
    top, left = (image.height - high) / 2, (image.width - wide) / 2
    box = (left, top, left + wide, top + high)
    if (1 / scale).is_integer() and all(side.is_integer() for side in box):
        return np.asarray(image.reduce(round(1 / scale), tuple(map(int, box))))  # the same, faster
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(image.resize((width, height), method, box))


def cache_folder() -> Path:
    """Return the cache folder, data/cache unless BREAKHIS_CACHE names another, and make it."""
    folder = resolve(os.environ.get("BREAKHIS_CACHE") or "data/cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(kind: str, key_parts: Iterable, shape: tuple, dtype, fill: Callable) -> np.memmap:
    """Return the array of this key from the cache; where there is none, let ``fill`` make it, once.

    ``key_parts`` (as text) say everything that the content depends on. ``fill(array)`` writes into
    an array of zeros. Of two processes that start at once, one builds and the other waits for its
    lock. A killed process leaves a ``.partial`` file, which is never believed. Read-only.
    """
    key = hashlib.sha256("\n".join(map(str, [kind, *key_parts])).encode()).hexdigest()[:16]
    file = cache_folder() / f"{kind}-{key}.npy"
    if not _is_there(file, shape, dtype):
        with locked(file.with_suffix(".lock"), "set BREAKHIS_CACHE to a local folder of your own"):
            if not _is_there(file, shape, dtype):
                _make_room(file.parent, math.prod(shape) * np.dtype(dtype).itemsize)
                _build(file, shape, dtype, fill)
    with suppress(OSError):  # a file of another user is not marked as used
        os.utime(file)
    return np.load(file, mmap_mode="r")


def _is_there(file: Path, shape: tuple, dtype) -> bool:
    """Return whether a file holds such an array: it may be missing, or cut short."""
    try:
        array = np.load(file, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return array.shape == tuple(shape) and array.dtype == dtype


def _build(file: Path, shape: tuple, dtype, fill: Callable[[np.ndarray], None]) -> None:
    partial = file.with_suffix(".partial")
    try:
        array = np.lib.format.open_memmap(partial, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, a crash in a memory map
            with partial.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, partial.stat().st_size)
        fill(array)
        array.flush()
        del array
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _make_room(folder: Path, n_bytes: int) -> None:
    """Remove what killed processes left, then what is oldest in use; OSError if it does not do."""
    text = os.environ.get("BREAKHIS_CACHE_GB") or "20"
    try:
        cap = float(text) * 1e9
    except ValueError:
        raise ValueError(f"BREAKHIS_CACHE_GB={text}: give gigabytes, as in 20") from None
    if not n_bytes <= cap:
        need = f"{n_bytes / 1e9:.2f} GB are needed: choose a smaller IMAGE_SIZE, or a larger cache"
        raise OSError(f"BREAKHIS_CACHE_GB allows {text} GB and {need}.")
    for left in folder.glob(f"{CACHED}.partial"):
        _remove_unless_locked(left)
    arrays = sorted(folder.glob(f"{CACHED}.npy"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in arrays)
    for file in arrays:
        if total + n_bytes > cap:
            total -= _remove_unless_locked(file)
    free = shutil.disk_usage(folder).free
    if free < n_bytes + RESERVE:
        raise OSError(
            f"{n_bytes / 1e9:.2f} GB are needed in {folder}, and {free / 1e9:.2f} GB are free: "
            "run make clean-cache, or set BREAKHIS_CACHE to a folder on another disk."
        )


def _remove_unless_locked(file: Path) -> int:
    """Remove a file of the cache that no process is building; return the bytes set free."""
    with suppress(OSError), FileLock(file.with_suffix(".lock"), timeout=0):
        size = file.stat().st_size
        file.unlink()
        return size
    return 0


def clean() -> int:
    """Remove the cache's own files that no process is building; return the bytes set free."""
    folder = cache_folder()
    files = [*folder.glob(f"{CACHED}.npy"), *folder.glob(f"{CACHED}.partial")]
    return sum(map(_remove_unless_locked, files))


if __name__ == "__main__":
    print(f"{cache_folder()}: {clean() / 1e6:,.0f} MB removed")
