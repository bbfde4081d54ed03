"""Fetch the database: download, check, unpack, verify, and only then put it into place.

``make data``, or ``python -m helpers.fetch --url URL --to DIR``. An interrupted download goes on
where it stopped. DIR/BreaKHis_v1 appears only when all of it is there and verified.
"""

import argparse
import errno
import shutil
import sys
import tarfile
import zlib
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from helpers.data.download import check_disk, download
from helpers.data.images import list_images
from helpers.data.verify import report, verify
from helpers.results import ROOT

URL = "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
NAME = "BreaKHis_v1"
OF_THE_DISK = {
    getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EIO", "EACCES", "EROFS")
}
CONTENT_RATIO = 1.1  # size of the content to that of the archive: PNG files hardly shrink


def fetch(url: str, to: Path, tries: int = 3) -> str:
    """Make ``to``/BreaKHis_v1 from the archive at ``url``, and return what it is, as text.

    Nothing is done where that folder holds images already. Raises OSError (connection, disk) after
    which the next call goes on, and ValueError where the archive or the folder is not what it
    should be; such an archive is removed, so that the next call downloads it afresh.
    """
    to.mkdir(parents=True, exist_ok=True)
    target, archive, partial = to / NAME, to / f"{NAME}.tar.gz", to / f".{NAME}.partial"
    with FileLock(to / f".{NAME}.lock", timeout=0):
        if target.exists():
            return _already_there(target)
        if not archive.exists():
            download(url, archive, tries, CONTENT_RATIO)
        shutil.rmtree(partial, ignore_errors=True)
        check_disk(to, archive.stat().st_size * CONTENT_RATIO)
        try:
            unpack(archive, partial)
            text = _check(partial)
            _inner(partial).replace(target)
        except ValueError:
            archive.unlink()
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        archive.unlink()
    return f"{text}\nThe images are in {target}."


def _already_there(target: Path) -> str:
    found = len(list_images(target)[0])
    if not found:
        raise ValueError(f"{target} exists but holds no images: move it away, then call again.")
    return (
        f"{target} is there already, with {found:,} images: nothing to do. "
        f"To check each of them: python -m helpers.data {target}"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the regular files of a tar archive into ``folder``, which is made.

    Links and devices are refused, and so are names that lead out of the folder. Raises ValueError
    where the archive is unsafe, damaged or no archive.
    """
    folder.mkdir()
    bar = tqdm(
        total=archive.stat().st_size, desc="Unpacking", unit="B", unit_scale=True, delay=1
    )  # fmt: skip
    try:
        with archive.open("rb") as file, bar, tarfile.open(fileobj=file) as tar:
            for member in tar:
                _unpack_member(tar, member, folder)
                bar.update(file.tell() - bar.n)
            _refuse_early_end(tar)
    except tarfile.FilterError as error:
        raise ValueError(f"The archive is unsafe: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"The archive is damaged, cut short, or none: {error}") from None
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise
        # From gzip, without a number; or a member that no disk takes, such as too long a name.
        raise ValueError(f"The archive is damaged: {error}") from None


def _refuse_early_end(tar: tarfile.TarFile) -> None:
    """Read to the end: tarfile takes a damaged header for the end, and gzip checks its sum there.

    After the true end of an archive there are only zeros.
    """
    while block := tar.fileobj.read(1 << 20):
        if block.strip(b"\0"):
            raise ValueError("The archive is damaged: a header in the middle cannot be read.")


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    if not (member.isreg() or member.isdir()):
        raise ValueError(f"The archive is unsafe: {member.name} is a link or a device.")
    if member.name.startswith("/") or ".." in Path(member.name).parts:
        raise ValueError(f"The archive is unsafe: {member.name} leads out of its folder.")
    if member.isreg():
        check_disk(folder, member.size)
        tar.extract(member, folder, set_attrs=False, filter="data")


def _check(folder: Path) -> str:
    """Return what was unpacked, as text; raise ValueError where it is not sound BreakHis."""
    result = verify(folder)
    if not result["sound"]:
        raise ValueError(f"The content of the archive is not sound.\n{report(result)}")
    return report(result).removeprefix(f"{result['folder']}: ")


def _inner(folder: Path) -> Path:
    """Return the archive's own BreaKHis_v1 if that is all it holds, else the folder itself."""
    return folder / NAME if [path.name for path in folder.iterdir()] == [NAME] else folder


def main(arguments: list[str] | None = None) -> int:
    """Download, verify and install the BreakHis images."""
    parser = argparse.ArgumentParser("python -m helpers.fetch", description=main.__doc__)
    parser.add_argument("--url", default=URL, help="address of the archive (%(default)s)")
    parser.add_argument("--to", default=ROOT / "data", type=Path, help="folder (%(default)s)")
    parser.add_argument("--tries", default=3, type=int, help="when a connection breaks")
    options = parser.parse_args(arguments)
    try:
        print(fetch(options.url, options.to.resolve(), options.tries))
    except Timeout:
        print(f"Another process fetches to {options.to}: wait for it.", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        advice = "\nMake room, then call again: what is downloaded is kept." if full else ""
        text = error.strerror if full else error
        print(f"fetch: {text}{advice}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Call again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
