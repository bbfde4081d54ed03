"""What several test modules share: the series, run once by the runner on the smallest phantom."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from runner.series import main

ROOT = Path(__file__).parents[1]


def run_series(reports, *argv):
    """The command on the whole series, on the phantom whatever this machine has; exit status."""
    with mock.patch.dict(os.environ):
        os.environ.pop("BREAKHIS_DIR", None)
        return main(["--profile", "smoke", "--reports", str(reports), "--run", "smoke", *argv])


def papermill(name, results, out, *options):
    """Plain papermill from the root of the repository, as a reader would call it."""
    command = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", str(out)]
    given = ["-p", "RESULTS", str(results), "--no-progress-bar", *options]
    return subprocess.run(command + given, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """The report of one smoke run: folder, results, reports (the folder of runs)."""
    reports = tmp_path_factory.mktemp("smoke") / "reports"
    status = run_series(reports)
    assert status == 0, "the smoke run failed: see its message above"
    folder = reports / "smoke"
    return SimpleNamespace(folder=folder, results=folder / "results", reports=reports)
