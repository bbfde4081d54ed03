"""Trainings on several workers: nothing lost, nothing done twice, the same results."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, papermill

from helpers import backbones

TESTS = str(Path(__file__).parent)


def start(module, *arguments, **env):
    """A process of Dask whose modules are those of the tests too."""
    command = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": TESTS, **env}
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path):
    """Address of a scheduler on loopback, and what starts a worker of it."""
    file, processes = tmp_path / "scheduler.json", []
    options = ["--host", "127.0.0.1", "--port", 0, "--dashboard-address", "127.0.0.1:0"]
    processes.append(start("dask_scheduler", *options, "--scheduler-file", file))

    def work(**env):
        options = ["--nthreads", 1, "--no-nanny", "--scheduler-file", file, "--no-dashboard"]
        processes.append(start("dask_worker", *options, **env))
        return processes[-1]

    wait_for(file.exists)
    yield json.loads(file.read_text())["address"], work
    for process in processes:
        process.kill()
        process.wait()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def workers_of(address):
    from distributed import Client

    with Client(address) as client:
        return len(client.ncores())


@contextmanager
def killing(worker, when):
    """Kill `worker` as soon as `when()` holds, beside what the block does."""

    def wait_and_kill():
        wait_for(when)
        worker.kill()

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    yield
    thread.join()


def train(log, number):
    """A stand-in for a training: says when it starts and when it ends."""
    log = Path(log)
    (log / f"start-{number}-{os.getpid()}").touch()
    time.sleep(1.0)
    (log / f"end-{number}-{os.getpid()}").touch()
    return np.full(3, number), {"number": number}


def test_a_killed_worker_costs_its_task_alone_and_what_is_done_is_never_run_again(
    cluster, tmp_path, capsys
):
    address, work = cluster
    victim, _ = work(), work()
    wait_for(lambda: workers_of(address) == 2)
    (log := tmp_path / "log").mkdir()
    arguments = [(str(log), number) for number in range(6)]
    run = partial(backbones.run_tasks, train, arguments, "key", tmp_path / "kept", address)

    def in_its_second_task():
        started, ended = (len(list(log.glob(f"{at}-*-{victim.pid}"))) for at in ("start", "end"))
        return started > ended > 0

    with killing(victim, in_its_second_task):
        found = run()
    for number, (array, facts) in enumerate(found):
        assert np.array_equal(array, np.full(3, number))
        assert facts == {"number": number}
    started = [file.name.split("-")[1] for file in log.glob("start-*")]
    assert len(list(log.glob("end-*"))) == 6  # none was finished twice
    assert len(started) == 7  # the one that the worker was at, again
    assert len(run()) == 6
    assert len(backbones.run_tasks(train, arguments, "key", tmp_path / "kept")) == 6  # from here
    assert len(list(log.glob("start-*"))) == 7
    backbones.run_tasks(train, arguments[:1], "another key", tmp_path / "kept")
    assert len(list(log.glob("start-*"))) == 8
    out = capsys.readouterr()
    assert "2 workers, dashboard http://127.0.0.1" in out.out
    assert "6/6" in out.err


def test_processes_of_this_machine_share_the_work(tmp_path):
    arguments = [(str(tmp_path), number) for number in range(4)]
    found = backbones.run_tasks(train, arguments, "key", tmp_path / "kept", n_jobs=2)
    assert [facts["number"] for _, facts in found] == [0, 1, 2, 3]
    assert len({file.name.split("-")[2] for file in tmp_path.glob("end-*")}) == 2
    assert len(list(tmp_path.rglob("output.pkl"))) == 4


def test_a_worker_that_cannot_help_says_so_at_once(cluster, tmp_path):
    address, work = cluster
    work(KERAS_BACKEND="jax")
    wait_for(lambda: workers_of(address) == 1)
    with pytest.raises(RuntimeError, match=r"worker tcp://\S+ answers .*jax.*tensorflow.*same"):
        backbones.run_tasks(train, [(str(tmp_path), 1)], "key", tmp_path / "kept", address)
    with pytest.raises(ValueError, match="SCHEDULER needs CHECKPOINTS"):
        backbones.run_tasks(train, [(str(tmp_path), 1)], "key", "", address)
    assert not list(tmp_path.glob("start-*"))


def test_two_folds_and_seeds_of_03_on_two_workers_are_those_of_one_machine(
    smoke_run, cluster, tmp_path
):
    address, work = cluster
    victim, _ = work(), work()
    wait_for(lambda: workers_of(address) == 2)
    name = "03_baseline_cnn"
    small = "{FOLDS: [1, 2], SEEDS: [0, 1], IMAGE_SIZE: [64, 96], FILTERS: [8, 8]}"
    options = ["-f", f"notebooks/params/smoke/{name}.yaml", "-y", small]

    def run(folder, *more):
        results = tmp_path / folder
        results.mkdir()
        for file in ("index.csv", "splits.csv", "data.json", "problems.csv"):
            (results / file).write_bytes((smoke_run.results / file).read_bytes())
        done = papermill(name, results, tmp_path / f"{folder}.ipynb", *options, *more)
        assert done.returncode == 0, done.stderr[-2000:]
        return pd.read_parquet(results / f"predictions/{name}.parquet")

    kept = tmp_path / "kept"

    with killing(victim, lambda: any(kept.rglob("output.pkl"))):
        many = run("many", "-p", "SCHEDULER", address, "-p", "CHECKPOINTS", str(kept))
    assert len(list(kept.rglob("output.pkl"))) == 4
    pd.testing.assert_frame_equal(run("one"), many, check_exact=True)
