"""Image files: where they lie in a folder, and strict decoding with a reason for each refusal."""

import errno
import hashlib
import io
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
PHANTOM_MARK = "breakhis-phantom"  # text at the head of each PNG of the phantom
MAX_PIXELS = 50_000_000  # a header that claims more is not a BreakHis image


def n_workers() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel(function: Callable, items: Iterable, label: str, unit: str = " images") -> list:
    """Map ``function`` over ``items`` in threads (decoding and hashing release the interpreter).

    Results are in the order of ``items``. A progress bar with the time left shows after a second;
    it moves rarely where it is not on a terminal, since a notebook or a log keeps each step.
    """
    items = list(items)
    pause = 0.5 if sys.stderr.isatty() else 10
    with ThreadPoolExecutor(n_workers()) as pool:
        bar = tqdm(
            pool.map(function, items),
            total=len(items), desc=label, unit=unit, delay=1, mininterval=pause, leave=False,
        )  # fmt: skip
        try:
            return list(bar)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def list_images(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Find the image files below ``folder``; names that start with a dot are not looked at.

    Links are followed, each real folder once, so a loop of links ends. Returns the paths, sorted,
    and a list of (path relative to ``folder``, reason) for what could not be entered.
    """
    images, refused, seen = [], [], set()

    def cannot_list(error: OSError) -> None:
        refused.append((relative(Path(error.filename), folder), f"cannot list: {error.strerror}"))

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=cannot_list):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                images.append(Path(parent) / name)
    return sorted(images), refused


def relative(path: Path, folder: Path) -> str:
    """Return ``path`` relative to ``folder`` with forward slashes, safe to print and to store."""
    text = path.relative_to(folder).as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def read_rgb(path: Path) -> Image.Image:
    """Decode an 8-bit RGB PNG in full.

    Anything else raises ValueError with the reason alone: unreadable, no regular file, empty,
    truncated, a damaged checksum, another format, or another kind of pixel (grey, palette, alpha,
    16 bits).
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    check_header(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width}x{image.height} px is too large")
                image.verify()  # checksums of all chunks, and that the file has its end
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                image.load()
                return image
    except Image.DecompressionBombError:
        raise ValueError("too large") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"truncated or damaged PNG ({error})") from None


def read_regular(path: Path) -> bytes:
    """Return the bytes of a regular file, which a link may lead to.

    OSError for anything else: a pipe without a writer would never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def check_header(content: bytes) -> None:
    """Raise ValueError unless ``content`` starts as an 8-bit RGB PNG does."""
    if not content:
        raise ValueError("empty file (0 bytes)")
    if not content.startswith(PNG_SIGNATURE):
        raise ValueError("not a PNG file")
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise ValueError("truncated or damaged PNG (no header)")
    depth, colour = content[24], content[25]
    if (depth, colour) != (8, 2):
        kind = COLOUR_TYPES.get(colour, f"colour type {colour}")
        raise ValueError(f"{depth}-bit {kind}, not 8-bit RGB")


def pixel_hash(pixels: np.ndarray) -> str:
    """Return the SHA-256 of size and pixels: equal for equal images, however they were packed."""
    digest = hashlib.sha256(f"{pixels.shape[1]}x{pixels.shape[0]} RGB8".encode())
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()


def marked_phantom(file: Path) -> bool:
    """Return whether a PNG says at its head that it was drawn by ``helpers.phantom``."""
    with file.open("rb") as handle:
        return PHANTOM_MARK.encode() in handle.read(256)
