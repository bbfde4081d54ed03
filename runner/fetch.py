"""`python -m runner.fetch` (`make data`): get the database, verify it, only then put it into place.

An interrupted download goes on where it stopped. What was not downloaded here is never deleted.
"""

import argparse
import errno
import gzip
import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path
from urllib.request import url2pathname

import requests
from filelock import FileLock, Timeout
from requests.exceptions import ProxyError, SSLError
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from helpers import data, images
from helpers.results import ROOT

URL = "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
NAME = "BreaKHis_v1"
RESERVE = 200e6  # bytes of the disk to leave free
CURES = {
    SSLError: "Where a proxy opens TLS, name its certificate: REQUESTS_CA_BUNDLE=/path/to/file.pem",
    ProxyError: "HTTP_PROXY and HTTPS_PROXY name the proxy (http://user:password@host:port), "
    "NO_PROXY the hosts that are reached without it.",
    KeyboardInterrupt: "Stopped. Call again to go on.",
    Timeout: "Another process fetches to this folder: wait for it.",
    errno.ENOSPC: "Make room and call again (what is downloaded is kept), or name another --to.",
    errno.EFBIG: "This disk takes no file so big (FAT32: 4 GB): name a folder elsewhere with --to.",
}


def fetch(url, to, tries=3):
    """Make `to`/BreaKHis_v1 from the archive at `url`, an address or a file; what it is, as text.

    OSError (connection, disk): the next call goes on. ValueError: archive or folder is not right.
    """
    target, partial = to / NAME, to / f".{NAME}.partial"
    mine = to / f".{NAME}-{zlib.crc32(url.encode()):x}"  # what comes from another address is other
    if target.is_dir() and images.list_images(target)[0]:
        return f"{target} is there already: nothing to do. To check it: make verify DATA={target}"
    if target.exists() or target.is_symlink():
        raise ValueError(f"{target} is there, without images or a link to nothing: move it away.")
    path = url2pathname(url.removeprefix("file://")) if url.startswith("file:") else url
    here = [Path(path).expanduser(), to / f"{NAME}.tar.gz", to / f"{NAME}.zip"]
    if not url.startswith(("http://", "https://")) and not here[0].is_file():
        raise ValueError(f"there is no file {path}: --url takes http(s)://, file:// or a path.")
    to.mkdir(parents=True, exist_ok=True)
    with FileLock(to / f".{NAME}.lock", timeout=0):
        archive = next(filter(Path.is_file, here), None) or download(url, mine, tries)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            unpack(archive, partial)
            result = data.verify(partial)
            if not result["sound"]:
                raise ValueError(f"{archive} is not the database.\n{data.report(result)}")
            alone = [path.name for path in partial.iterdir()] == [NAME]
            (partial / NAME if alone else partial).replace(target)
        except ValueError:
            mine.unlink(missing_ok=True)  # so that the next call downloads it afresh
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        mine.unlink(missing_ok=True)
    return data.report(result | {"folder": str(target)})


def download(url, file, tries):
    """Download `url` to `file`, going on where an earlier attempt or call stopped; gives `file`."""
    try:
        return receive(url, file)
    except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
        if tries == 1 or type(error) in CURES:
            cure = CURES.get(type(error), "It broke off. Call again to go on from there.")
            raise OSError(f"{url}: {error}\n{cure}") from None
    time.sleep(5)
    return download(url, file, tries - 1)


def receive(url, file):
    """Bring `file` to its full size in one request, from where it ends; gives `file`."""
    start = file.stat().st_size if file.exists() else 0
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    with requests.get(url, headers=headers, stream=True, timeout=(30, 60)) as response:
        if response.status_code == 407:
            raise ProxyError("the proxy asks for a password")
        if response.status_code == 416 and start:  # nothing comes after it: the file is complete
            return file
        response.raise_for_status()
        if "html" in response.headers.get("Content-Type", "").lower():
            raise ValueError(f"{url} is a web page: find the archive's address with a browser")
        start = start if response.status_code == 206 else 0
        rest = int(response.headers.get("Content-Length", 0))
        wanted, free = 2.1 * rest + 1.1 * start + RESERVE, shutil.disk_usage(file.parent).free
        if free < wanted:  # for the archive and its content: PNG files hardly shrink
            told = f"{wanted / 1e9:.1f} GB must be free in {file.parent}, {free / 1e9:.1f} GB are."
            raise OSError(errno.ENOSPC, told)
        bar = tqdm(total=start + rest or None, initial=start, unit="B", unit_scale=True)
        with file.open("ab" if start else "wb") as part, bar:
            for chunk in response.raw.stream(1 << 20, decode_content=False):
                part.write(chunk)
                bar.update(len(chunk))
    return file


def unpack(archive, folder):
    """Unpack a tar or zip archive into `folder`, and nothing outside of it; else ValueError."""
    try:
        if zipfile.is_zipfile(archive):
            zipfile.ZipFile(archive).extractall(folder)
            return
        with tarfile.open(archive) as file:
            for member in tqdm(file, "Unpacking", delay=1):
                file.extract(member, folder, set_attrs=False, filter="data")
            while block := file.fileobj.read(1 << 20):  # only zeros come after the end
                if block.strip(b"\0"):
                    raise tarfile.ReadError("a header in it cannot be read")
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} is damaged, unsafe or no archive: {error}") from None


def main(arguments=None):
    """Download, verify and install the BreakHis images."""
    parser = argparse.ArgumentParser("python -m runner.fetch", description=main.__doc__)
    parser.add_argument("--url", default=URL, help="address or path of the archive (%(default)s)")
    parser.add_argument("--to", default=ROOT / "data", type=Path, help="folder (%(default)s)")
    parser.add_argument("--tries", default=3, type=int, help="when a connection breaks")
    options = parser.parse_args(arguments)
    try:
        print(fetch(options.url, options.to.expanduser().absolute(), options.tries))
        return 0
    except (KeyboardInterrupt, OSError, ValueError) as error:
        cure = CURES.get(getattr(error, "errno", None)) or CURES.get(type(error), "")
        print(f"fetch: {error} {cure}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 1


if __name__ == "__main__":
    sys.exit(main())
