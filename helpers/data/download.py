"""One file over HTTP: with a progress bar, resumed after an interruption, never half believed."""

import errno
import json
import os
import shutil
import time
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

CHUNK = 1 << 20  # bytes
TIMEOUT = (30, 60)  # seconds to connect, and without a byte
RESERVE = 200e6  # bytes of the disk to leave free
BROKEN = (requests.ConnectionError, requests.Timeout, HTTPError)


def check_disk(folder: Path, n_bytes: float) -> None:
    """Raise OSError where the disk of ``folder`` has less than ``n_bytes`` free, and a reserve."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes + RESERVE:
        raise OSError(
            errno.ENOSPC,
            f"{(n_bytes + RESERVE) / 1e9:.1f} GB must be free in {folder}, and {free / 1e9:.1f} GB "
            "are. --to chooses another folder.",
        )


def download(url: str, file: Path, tries: int = 3, extra: float = 0.0) -> None:
    """Download ``url`` to ``file``, which appears only when it is complete.

    What has come so far waits in ``<file>.part``, and the next call goes on from there if the
    server can, and still has the same file; else it begins again. A broken connection is tried
    again ``tries`` times in all. ``extra`` is how much more disk is needed later, as a share of
    the file's size. Raises OSError with what went wrong; ValueError for a web page.
    """
    part = file.with_name(f"{file.name}.part")
    for attempt in range(1, tries + 1):
        try:
            _attempt(url, part, extra)
            break
        except BROKEN as error:
            so_far = part.stat().st_size if part.exists() else 0
            if attempt == tries:
                raise ConnectionError(
                    f"The download of {url} broke off after {so_far / 1e6:,.1f} MB ({error}). "
                    "Call again to go on from there."
                ) from None
            time.sleep(min(2**attempt, 30))
        except requests.RequestException as error:
            raise OSError(f"{url} cannot be downloaded: {error}") from None
    part.replace(file)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _attempt(url: str, part: Path, extra: float) -> None:
    """Bring ``part`` to its full size in one request."""
    start, known = _so_far(url, part)
    if start and start == known["total"]:
        return
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if known["validator"]:
            headers["If-Range"] = known["validator"]
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if start and response.status_code in (206, 416) and not _continues(response, start, known):
            part.unlink()
            raise requests.ConnectionError("the file on the server has changed")
        response.raise_for_status()
        _refuse_page(response, url)
        start, total = _place(response)
        check_disk(part.parent, (total or 0) * (1 + extra) - start)
        state = {"url": url, "total": total, "validator": _validator(response)}
        _note(part).write_text(json.dumps(state))
        _receive(response, part, start, total)


def _so_far(url: str, part: Path) -> tuple[int, dict]:
    """Return how many bytes are there, and what was noted about them; (0, {}) if no use."""
    try:
        known = json.loads(_note(part).read_text())
        return (part.stat().st_size, known) if known["url"] == url else (0, {})
    except (OSError, ValueError, KeyError):
        return 0, {}


def _continues(response: requests.Response, start: int, known: dict) -> bool:
    """Return whether the answer is the rest of the same file, from byte ``start``."""
    first, total = _range(response)
    return response.status_code == 206 and first == start and total == known["total"]


def _place(response: requests.Response) -> tuple[int, int | None]:
    """Return where the answer begins in the file, and the file's size if the server says it."""
    if response.status_code == 206:
        return _range(response)
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """Read Content-Range, ``bytes 100-199/200`` or ``bytes */200``: (first byte, size)."""
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return int(first) if first.isdigit() else None, int(total) if total.isdigit() else None


def _validator(response: requests.Response) -> str | None:
    """Return what names this version of the file; a weak ETag does not vouch for its bytes."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _refuse_page(response: requests.Response, url: str) -> None:
    if "html" in response.headers.get("Content-Type", "").lower():
        raise ValueError(
            f"{url} answers with a web page, not an archive: open it in a browser, and give the "
            "address of the archive with --url."
        )


def _receive(response: requests.Response, part: Path, start: int, total: int | None) -> None:
    bar = tqdm(
        total=total, initial=start, desc="Downloading", unit="B", unit_scale=True, unit_divisor=1000
    )
    with part.open("r+b" if start else "wb") as file, bar:
        file.seek(start)
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            bar.update(len(chunk))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if total is not None and size != total:
        raise requests.ConnectionError(f"{size:,} of {total:,} bytes came")
