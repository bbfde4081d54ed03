"""The runner under failure, on a series of tiny notebooks."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import tiny

from helpers import results
from runner import plan, provenance
from runner.audit import load

SLOW = "import time\nfrom pathlib import Path\n\nPath('started').touch()\ntime.sleep(60)"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A series that has run once; tests work on copies of it."""
    root = tiny.project(tmp_path_factory.mktemp("tiny") / "series")
    assert tiny.run(root) == 0
    return root


@pytest.fixture
def series(finished, tmp_path):
    return tiny.copy(finished, tmp_path / "series")


def report(root, run="demo"):
    return Path(root, "reports/runs", run)


def state(root):
    """Bytes of every file of the published report."""
    return {p: p.read_bytes() for p in report(root).rglob("*") if p.is_file()}


def entries(root, run="demo"):
    return load(report(root, run) / "run.json")["notebooks"]


def orphans(root):
    """Processes that still work in `root`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(root) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def check_failed(root, before, status, said, *words):
    """Status not zero, the words said, the report as it was, no process left."""
    assert status != 0
    for word in words:
        assert word in said
    assert state(root) == before
    assert orphans(root) == []


def start(root, *argv):
    """The command in a process of its own, deaf to SIGHUP as under nohup."""
    return subprocess.Popen(
        [sys.executable, tiny.__file__, str(root), *argv], cwd=root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip


def wait_for(path, seconds=60):
    """Wait until `path` exists."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.1)


def wait_for_none_left(root, seconds=15):
    end = time.monotonic() + seconds
    while orphans(root) and time.monotonic() < end:
        time.sleep(0.2)
    assert orphans(root) == []


# What is run again, and what is not


def test_a_second_run_does_nothing_and_says_why(series, capsys):
    before, begin = state(series), time.monotonic()
    assert tiny.run(series) == 0
    assert time.monotonic() - begin < 10
    said = capsys.readouterr().out
    assert said.count("done and valid (finished") == 3
    assert "running" not in said
    assert state(series) == before


def test_a_changed_helper_redoes_what_is_asked_and_marks_the_rest_as_stale(series, capsys):
    Path(series, "helpers/shapes.py").write_text("def area(x):\n    return 3 * x\n")
    assert tiny.run(series, "--notebooks", "03") == 0
    assert "03_third: running (changed: helpers/shapes.py)" in capsys.readouterr().out
    assert [entry["stale"] for entry in entries(series).values()] == [
        "changed: helpers/shapes.py"
    ] * 2 + [""]
    assert "Stale: changed: helpers/shapes.py" in (report(series) / "index.html").read_text()
    assert "up to date" not in (report(series).parent / "index.html").read_text()


def test_changed_results_are_made_again_and_flow_on(series, capsys):
    results = report(series) / "results"
    before = (results / "02_second.csv").read_text()
    (results / "01_first.csv").write_text("edited by hand")
    assert tiny.run(series) == 0
    said = capsys.readouterr().out
    assert "01_first: running (changed: 01_first.csv)" in said
    assert "02_second: done and valid" in said  # 01 wrote the same again: 02 stands
    assert (results / "02_second.csv").read_text() == before


def test_parameters_and_profile_reach_the_notebooks(series):
    argv = ["--profile", "smoke", "--run", "my run", "--notebooks", "01 03", "-p", "EPOCHS=4"]
    assert tiny.run(series, *argv) == 0
    results = report(series, "my run") / "results"
    assert "7,27" in (results / "01_first.csv").read_text()
    assert "0,4" in (results / "03_third.csv").read_text()
    found = entries(series, "my run")
    assert list(found) == ["01_first", "03_third"]
    assert found["03_third"]["parameters"]["EPOCHS"] == 4
    page = (report(series).parent / "index.html").read_text()
    assert 'href="my%20run/index.html"' in page
    assert 'href="demo/index.html"' in page


def test_parameters_are_read_by_the_type_of_their_default():
    defaults = {"nb": {"EPOCHS": 1, "RATE": 0.5, "NAME": "x", "FOLDS": [], "SIZE": [2, 3]}}
    chosen = {"nb": {}}
    for pair in ("EPOCHS=3", "RATE=1e-3", "NAME=123", "FOLDS=[a, 2]", "SIZE=[4, 5]"):
        name, _, value = pair.partition("=")
        plan.spread(name, value, defaults, chosen, plan.yaml.safe_load)
    want = {"EPOCHS": 3, "RATE": 0.001, "NAME": "123", "FOLDS": ["a", 2], "SIZE": [4, 5]}
    assert chosen["nb"] == want


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["-p", "EPOCHZ=3"], ["EPOCHZ: unknown", "EPOCHS", "MAGNIFICATIONS"]),
        (["-p", "EPOCHS=three"], ["03_third: EPOCHS", "int", "three"]),
        (["-p", "EPOCHS=2.5"], ["EPOCHS", "int", "2.5"]),
        (["-p", "EPOCHS=true"], ["EPOCHS", "int", "True"]),
        (["-p", "MAGNIFICATIONS=50"], ["MAGNIFICATIONS", "list", "50"]),
        (["-p", "MAGNIFICATIONS=[forty]"], ["MAGNIFICATIONS[0]", "int"]),
        (["-p", "MAGNIFICATIONS=[40"], ["[40"]),
        (["-p", "RESULTS=elsewhere"], ["RESULTS", "--run"]),
        (["-p", "EPOCHS"], ["EPOCHS", "int"]),
        (["--timeout", "0"], ["--timeout 0", "above 0", "no limit"]),
        (["--timeout", "-1"], ["--timeout -1", "above 0", "no limit"]),
        (["--run", "a/b"], ["'a/b'", "slash"]),
        (["--run", ".hidden"], ["'.hidden'", "dot"]),
        (["--notebooks", "01 09"], ["'09'", "03_third"]),
        (["--profile", "big"], ["'big'", "demo, smoke"]),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(series, capsys, given, words):
    before = state(series)
    status = tiny.run(series, *given)
    said = capsys.readouterr()
    check_failed(series, before, status, said.err, "error:", *words)
    assert said.out == ""
    assert [path.name for path in report(series).parent.iterdir()].count(".demo.running") == 0


@pytest.mark.parametrize(
    ("file", "content"),
    [("09_ninth", "SEED: 1"), ("03_third", "EPOCHZ: 1"), ("03_third", "SEED: x")],
)
def test_a_bad_profile_is_refused(series, capsys, file, content):
    Path(series, f"notebooks/params/demo/{file}.yaml").write_text(content)
    before = state(series)
    check_failed(series, before, tiny.run(series), capsys.readouterr().err, "error:", file)


def test_a_notebook_without_parameters_is_refused(series, capsys):
    tiny.write(series, "02_second", "SEED = 0\nvalue = 1", parameters="")
    before = state(series)
    status = tiny.run(series)
    said = capsys.readouterr()
    check_failed(series, before, status, said.err, "02_second", "tagged 'parameters'")
    assert said.out == ""


def test_an_environment_that_was_moved_says_so(series, capsys, monkeypatch, tmp_path):
    spec = tmp_path / "venv/share/jupyter/kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/old/place/.venv/bin/python", "-m", "ipykernel"]}))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert tiny.run(series) == 1
    assert "moved: /old/place/.venv/bin/python" in (said := capsys.readouterr().err)
    assert "run make env again" in said


# Failures


def test_an_exception_names_notebook_cell_and_cause_then_carries_on(series, capsys):
    tiny.write(series, "01_first", "value = 5")
    tiny.write(series, "02_second", "value = 1", "raise RuntimeError('no tissue')")
    before = state(series)
    status = tiny.run(series)
    said = capsys.readouterr().err
    words = ["02_second failed in cell 5 of 6 (raise RuntimeError", "RuntimeError: no tissue"]
    check_failed(series, before, status, said, *words)
    tiny.write(series, "02_second", "value = 1")
    assert tiny.run(series) == 0
    said = capsys.readouterr().out
    assert "01_first: done and valid" in said  # not run again: it was done in the failed run
    assert "02_second: running" in said
    assert "0,5" in (report(series) / "results/01_first.csv").read_text()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os\n\nos.kill(os.getpid(), 9)", ["cell 4 of 6", "Kernel died", "Out of memory?"]),
        ("raise MemoryError", ["cell 4 of 6", "MemoryError", "A smaller IMAGE_SIZE"]),
        ("import os\n\nos.kill(os.getppid(), 9)\n1 + 1", ["cell 4 of 6", "process was killed"]),
        ("import signal, re\nsignal.signal(2, signal.SIG_IGN)\nsignal.signal(15, signal.SIG_IGN)\n"
         "re.match('(a+)+$', 'a' * 40 + 'b')", ["cell 4 of 6", "--timeout"]),
        ("import sys\n\nsys.exit(0)", ["without its result"]),
    ],
    ids=["kernel killed", "no memory", "papermill killed", "hanging, deaf", "ends early"],
)  # fmt: skip
def test_a_notebook_that_does_not_end_well(series, capsys, code, words):
    tiny.write(series, "02_second", code, "value = 1")
    before, begin = state(series), time.monotonic()
    status = tiny.run(series, "--timeout", "1")
    wait_for_none_left(series)
    check_failed(series, before, status, capsys.readouterr().err, "02_second", *words)
    assert time.monotonic() - begin < 60


def test_stopped_by_the_user_and_two_runs_at_once(series, capsys):
    tiny.write(series, "02_second", SLOW, "value = 1")
    before = state(series)
    first = start(series)
    wait_for(Path(series, "started"))
    first.send_signal(signal.SIGHUP)  # the terminal is closed, as it may be under nohup
    assert tiny.run(series) == 1
    assert "'demo' is already going" in capsys.readouterr().err
    assert first.poll() is None  # the first goes on undisturbed
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=30)[0]
    check_failed(series, before, first.returncode, said, "stopped", "02_second")
    assert first.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_runner_leaves_no_kernel_and_can_run_again(series, number):
    tiny.write(series, "02_second", SLOW, "value = 1")
    before = state(series)
    process = start(series, "--notebooks", "02")
    wait_for(Path(series, "started"))
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    wait_for_none_left(series)
    assert state(series) == before
    if number == signal.SIGKILL:
        tiny.write(series, "02_second", "value = 1")
        assert tiny.run(series, "--notebooks", "02") == 0


def test_a_killed_publication_is_repaired(series):
    before = state(series)
    report(series).rename(report(series, ".demo.old"))  # killed between the two renames
    assert tiny.run(series) == 0
    assert state(series) == before
    assert not report(series, ".demo.old").exists()


def test_a_publication_that_fails_puts_the_old_report_back(series, capsys, monkeypatch):
    rename = Path.rename

    def failing(path, target):
        if path.name == ".demo.running":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return rename(path, target)

    before = state(series)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        status = tiny.run(series)
    check_failed(series, before, status, capsys.readouterr().err, "Input/output error")
    assert not report(series, ".demo.old").exists()


def test_what_a_failed_run_of_other_parameters_left_is_not_taken_up(series):
    fails = "value = 1\n\nassert SEED == 0, 'this seed fails'"
    tiny.write(series, "02_second", fails)
    assert tiny.run(series, "-p", "SEED=5", "--notebooks", "01 02") == 1
    left = report(series, ".demo.running") / "results/01_first.csv"
    assert left.read_text() == "seed,value\n5,25\n"
    assert tiny.run(series, "--notebooks", "03", "-p", "EPOCHS=4") == 0
    results = report(series) / "results"
    assert (results / "01_first.csv").read_text() == "seed,value\n0,20\n"
    assert "0,4" in (results / "03_third.csv").read_text()
    assert [entry["parameters"]["SEED"] for entry in entries(series).values()] == [0, 0, 0]


def test_a_renamed_notebook_leaves_nothing_behind(series, capsys):
    scores = report(series) / "results/metrics.csv"
    columns = [*results.METRIC_COLUMNS, "images"]
    row = dict.fromkeys(columns, 1) | {"notebook": "03_third"}
    pd.DataFrame([row]).to_csv(scores, index=False)
    Path(series, "notebooks/03_third.ipynb").unlink()
    tiny.write(series, "04_fourth", "value = 4")
    assert tiny.run(series) == 0
    said = capsys.readouterr().out
    assert "03_third: no longer in notebooks/" in said
    assert "04_fourth: running (not done yet)" in said
    assert list(entries(series)) == ["01_first", "02_second", "04_fourth"]
    kept = {path.name for name in (".", "results") for path in (report(series) / name).iterdir()}
    assert {name for name in kept if "third" in name} == set()
    assert "03_third" not in (report(series) / "index.html").read_text() + scores.read_text()


def in_small_space(root, options, prepare):
    """Run the series where reports/ is a file system of its own; the finished process.

    options: of mount; prepare: shell commands between the copy of the last report and the run.
    """
    script = f"""
    cp -R reports earlier && mount -t tmpfs -o size=8m none reports || exit 77
    cp -R earlier/runs reports; {prepare}; mount -o remount,{options} reports || exit 77
    {sys.executable} {tiny.__file__} {root}; status=$?
    diff -r earlier/runs/demo reports/runs/demo > difference || status=99
    exit $status"""
    inside = ["unshare", "-rm"]
    allowed = subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run([*inside, "bash", "-c", script], cwd=root, capture_output=True, text=True)
    if done.returncode == 77 or not allowed:
        message = "this machine lets a user mount nothing (unshare -rm, mount): disks not checked"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return done


def blocks(paths):
    """Size of files on a file system of 4 KiB blocks."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in paths)


@pytest.mark.parametrize("when", ["copying", "running", "writing pages"])
def test_a_full_disk(series, when):
    files = [path for path in report(series).rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix != ".html"]
    room = {"copying": 8192, "running": blocks(kept) - 8192, "writing pages": blocks(kept) + 32768}
    assert blocks(files) > room["writing pages"] + 16384  # else the pages would fit
    tiny.write(series, "03_third", "value = 5 * SEED")
    fill = f"head -c $(($(stat -f -c '%a*%S' reports) - {room[when]})) /dev/zero > reports/filler"
    done = in_small_space(series, "rw", fill)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left" in done.stderr
    assert "the disk is full: free some space" in done.stderr
    assert ("03_third: done" in done.stdout) == (when == "writing pages")
    assert orphans(series) == []


def test_an_unwritable_folder(series):
    tiny.write(series, "03_third", "value = 5 * SEED")
    done = in_small_space(series, "ro", "true")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Read-only file system" in done.stderr
    assert "running" not in done.stdout


# What a run says about itself


def test_run_json_and_pages_tell_the_whole_story_without_paths(finished):
    text = (report(finished) / "run.json").read_text()
    record = json.loads(text)
    assert list(record["notebooks"]) == ["01_first", "02_second", "03_third"]
    entry = record["notebooks"]["01_first"]
    assert {name: entry[name] for name in tiny.HERE} == tiny.HERE
    assert entry["parameters"] == {"SEED": 0, "MAGNIFICATIONS": [40, 100]}
    assert {"helpers/shapes.py", "requirements.lock", "notebook"} < set(entry["key"])
    page = (report(finished) / "01_first.html").read_text()
    for words in ("Keras 8.8 with JAX 9.9. GPU X1.", "at commit fffffff", "Seed 0", "A teal field"):
        assert words in page
    assert "reports/runs/demo/results" in page
    for path in (*report(finished).glob("*.html"), report(finished) / "run.json"):
        assert str(finished) not in path.read_text(), path


def test_pictures_of_tissue_can_be_left_out(series):
    assert tiny.run(series, "--no-tissue") == 0
    page = (report(series) / "01_first.html").read_text()
    assert "Pictures of tissue are shown when you run it" in page
    assert "Teal." in page
    for text in (page, (report(series) / "index.html").read_text()):
        assert "data:image/" not in text


def test_the_backend_is_asked_and_a_gpu_that_is_not_used_is_told(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho NVIDIA X1\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    here = provenance.where(tiny.ROOT)
    assert here["backend"].startswith("JAX ")
    assert here["device"].startswith("CPU, ")
    assert here["idle"].startswith("warning: JAX does not use the NVIDIA X1: ")
    assert here["commit"]


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nonesuch")
    with pytest.raises(ValueError, match=r"KERAS_BACKEND.*nonesuch"):
        provenance.where(tiny.ROOT)


# Images


def test_images_are_named_first_and_their_place_is_told_nowhere(tmp_path, monkeypatch, capsys):
    root = tiny.project(tmp_path / "series")
    folder = tiny.with_data(root, tmp_path / "secret place" / "images")
    monkeypatch.setenv("BREAKHIS_DIR", str(folder))
    assert tiny.run(root, "--notebooks", "01") == 0
    assert capsys.readouterr().out.startswith("2 real images of 1 slides, in images\n")
    made = report(root, "breakhis")
    for name in ("run.json", "01_first.html", "index.html"):
        assert "secret place" not in (made / name).read_text(), name
    assert ">images" in (made / "01_first.html").read_text()  # what the cell printed
    entry = entries(root, "breakhis")["01_first"]
    assert "DATA" not in entry["parameters"]
    assert len(entry["key"]["images"]) == 12

    # the same images elsewhere are no change of the results, other images begin anew
    (folder / "SOB_B_A-14-22549AB-40-002.png").unlink()
    assert tiny.run(root, "--notebooks", "01") == 1  # 01 of this test plants what it found before
    assert "the images changed meanwhile" in capsys.readouterr().err
    tiny.index_images(root, folder)
    assert tiny.run(root, "--notebooks", "01") == 0
    assert entries(root, "breakhis")["01_first"]["key"]["images"] != entry["key"]["images"]
    monkeypatch.delenv("BREAKHIS_DIR")
    if not (tiny.ROOT / "data/BreaKHis_v1").exists():
        assert tiny.run(root, "--notebooks", "03", "--run", "demo") == 0
        assert "PHANTOM: synthetic images" in capsys.readouterr().out


def test_results_of_other_images_are_removed_when_the_images_are_made_anew(series, capsys):
    refuse = 'from pathlib import Path\n\nif Path(RESULTS, "02_second.csv").exists():\n'
    refuse += (
        '    raise ValueError(f"{RESULTS} holds results of other images: 02_second.csv")\nvalue = 1'
    )
    tiny.write(series, "01_first", refuse)
    assert tiny.run(series, "--notebooks", "01") == 0
    assert "what was computed on those is removed" in capsys.readouterr().out
    assert list(entries(series)) == ["01_first"]
    assert not (report(series) / "results/02_second.csv").exists()


def test_a_folder_of_images_that_is_not_there_is_refused(tmp_path, capsys):
    root = tiny.project(tmp_path / "series")
    tiny.with_data(root, tmp_path / "images")
    assert tiny.run(root, "--data", str(tmp_path / "nothing")) == 1
    assert "nothing" in capsys.readouterr().err


# The Makefile


def make(*argv, folder=tiny.ROOT):
    done = subprocess.run(["make", *argv], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_make_quotes_what_it_passes_on():
    said = make("-n", "run", "RUN=my run", "DATA=a b", "NOTEBOOKS=01 02")
    assert '--run "my run" --data "a b" --notebooks "01 02"' in said


def test_make_sees_a_clone_that_was_moved(tmp_path):
    (tmp_path / ".venv").mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(tiny.ROOT / name, tmp_path)
    stamp = tmp_path / ".venv/.lock-installed"
    stamp.write_text(f"{tmp_path}\n")
    assert "venv" not in make("-n", "env", folder=tmp_path)
    stamp.write_text("/the/old place\n")
    said = make("-n", "env", folder=tmp_path)
    assert "moved from" in said
    assert "venv --clear .venv" in said


def test_a_pip_conf_of_the_user_does_not_break_the_environment(tmp_path):
    conf = tmp_path / "pip.conf"
    conf.write_text("[install]\nuser = true\n")
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "-q", "pip"]
    line = next(
        line for line in (tiny.ROOT / "Makefile").read_text().splitlines() if "-m pip" in line
    )
    setting = dict([line.strip().split()[0].split("=")])
    for extra, works in (({}, False), (setting, True)):
        env = {**os.environ, "PIP_CONFIG_FILE": str(conf), **extra}
        done = subprocess.run(pip, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == works, done.stderr
