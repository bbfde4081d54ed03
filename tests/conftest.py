"""What several test modules share: the series, run once by the runner on the smallest phantom."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.runner.series import main

ROOT = Path(__file__).parents[1]


def run_series(reports, *argv):
    """The command on the whole series, on the phantom whatever this machine has; exit status."""
    kept = os.environ.pop("BREAKHIS_DIR", None)
    try:
        return main(["--profile", "smoke", "--reports", str(reports), "--run", "smoke", *argv])
    finally:
        if kept is not None:
            os.environ["BREAKHIS_DIR"] = kept


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """The report of one smoke run: folder, results, reports (the folder of runs)."""
    reports = tmp_path_factory.mktemp("smoke") / "reports"
    status = run_series(reports)
    assert status == 0, "the smoke run failed: see its message above"
    folder = reports / "smoke"
    return SimpleNamespace(folder=folder, results=folder / "results", reports=reports)
