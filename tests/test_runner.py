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

import psutil
import pytest
import tiny

from helpers.report import site
from helpers.runner import notebooks, provenance, staging, steps, worker

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


def state(root):
    """Bytes of every file of the published report."""
    return {p: p.read_bytes() for p in Path(root, "reports/demo").rglob("*") if p.is_file()}


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
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, tiny.__file__, str(root), *argv],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(path, seconds=60):
    """Wait until `path` exists."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.1)


def test_second_run_does_nothing_and_says_why(series, capsys):
    before, begin = state(series), time.monotonic()
    assert tiny.run(series) == 0
    assert time.monotonic() - begin < 10
    said = capsys.readouterr().out
    assert "nothing to do" in said
    assert said.count("done and valid") == 3
    assert state(series) == before


def test_a_touched_helper_redoes_what_depends_on_it(series, capsys):
    # 02 imports helpers.shapes, which imports helpers.lines; 01 and 03 import neither
    Path(series, "helpers/lines.py").write_text("def double(x):\n    return 3 * x\n")
    assert tiny.run(series) == 0
    said = capsys.readouterr().out
    assert "02_second: running (changed: helpers/lines.py)" in said
    assert "01_first: done and valid" in said
    assert "03_third: done and valid" in said


def test_a_clone_with_the_pages_alone_runs_one_notebook(series):
    for name in ("executed", "logs", "results"):
        shutil.rmtree(Path(series, "reports/demo", name))
    assert tiny.run(series, "--notebooks", "01") == 0
    assert list(staging.read_record(Path(series, "reports/demo"))["notebooks"]) == ["01_first"]


def test_changed_results_are_made_again_and_flow_on(series, capsys):
    results = Path(series, "reports/demo/results")
    before = (results / "02_second.csv").read_text()
    (results / "01_first.csv").write_text("edited by hand")
    assert tiny.run(series) == 0
    said = capsys.readouterr().out
    assert "01_first: running (results missing or changed: 01_first.csv)" in said
    assert "02_second: done and valid" in said  # 01 wrote the same again: 02 stands
    assert (results / "02_second.csv").read_text() == before


def test_parameters_reach_notebooks_and_redo_them(series):
    assert tiny.run(series, "-p", "EPOCHS=4") == 0
    assert "0,4" in Path(series, "reports/demo/results/03_third.csv").read_text()
    record = staging.read_record(Path(series, "reports/demo"))
    assert record["notebooks"]["03_third"]["parameters"]["EPOCHS"] == 4
    assert record["notebooks"]["01_first"]["parameters"]["SEED"] == 0


def test_profile_gives_parameters(series):
    assert tiny.run(series, "--profile", "smoke", "--run", "other", "--notebooks", "01") == 0
    assert "7,27" in Path(series, "reports/other/results/01_first.csv").read_text()
    page = Path(series, "reports/other/index.html").read_text()
    assert "01_first.html" in page
    assert "02_second.html" not in page
    assert "demo/index.html" in page  # all runs are listed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("EPOCHZ=3", ["EPOCHZ", "EPOCHS", "MAGNIFICATIONS"]),
        ("EPOCHS=three", ["EPOCHS", "int", "three", "03_third"]),
        ("EPOCHS=2.5", ["EPOCHS", "int", "2.5"]),
        ("EPOCHS=true", ["EPOCHS", "int", "True"]),
        ("MAGNIFICATIONS=50", ["MAGNIFICATIONS", "list", "50"]),
        ("MAGNIFICATIONS=[forty]", ["MAGNIFICATIONS[0]", "int"]),
        ("RESULTS=elsewhere", ["RESULTS", "--run"]),
        ("EPOCHS", ["NAME=value"]),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(series, capsys, given, words):
    before = state(series)
    status = tiny.run(series, "-p", given)
    said = capsys.readouterr()
    check_failed(series, before, status, said.err, "error:", *words)
    assert said.out == ""
    assert not staging.running(Path(series, "reports"), "demo").exists()


def test_good_parameters_are_read_by_type():
    defaults = {"nb": {"EPOCHS": 1, "RATE": 0.5, "NAME": "x", "FOLDS": [], "SIZE": [2, 3]}}
    chosen = {"nb": {}}
    for pair in ("EPOCHS=3", "RATE=1e-3", "NAME=123", "FOLDS=[1, 2]", "SIZE=[4, 5]"):
        name, _, value = pair.partition("=")
        notebooks.spread(name, value, defaults, chosen, text=True)
    want = {"EPOCHS": 3, "RATE": 0.001, "NAME": "123", "FOLDS": [1, 2], "SIZE": [4, 5]}
    assert chosen["nb"] == want


def test_a_value_that_the_notebook_refuses(series, capsys):
    check = 'assert set(MAGNIFICATIONS) <= {40, 100}, "MAGNIFICATIONS allows 40, 100"'
    tiny.write(series, "01_first", check, "value = 1")
    before = state(series)
    status = tiny.run(series, "-p", "MAGNIFICATIONS=[50]")
    said = capsys.readouterr().err
    check_failed(series, before, status, said, "01_first", "MAGNIFICATIONS allows 40, 100")


@pytest.mark.parametrize("content", ["no such notebook: {}", "all: {EPOCHZ: 1}", "all: {SEED: x}"])
def test_bad_profile_is_refused(series, capsys, content):
    Path(series, "notebooks/params/demo.yaml").write_text(content)
    before = state(series)
    check_failed(series, before, tiny.run(series), capsys.readouterr().err, "error:")


def test_notebook_without_parameters_is_refused(series, capsys):
    tiny.write(series, "02_second", "SEED = 0\nvalue = 1", parameters="")
    before = state(series)
    status = tiny.run(series)
    said = capsys.readouterr()
    check_failed(series, before, status, said.err, "02_second", "tagged 'parameters'")
    assert said.out == ""


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
    assert "0,5" in Path(series, "reports/demo/results/01_first.csv").read_text()


def test_a_killed_kernel(series, capsys):
    tiny.write(series, "02_second", "import os\n\nos.kill(os.getpid(), 9)", "value = 1")
    before = state(series)
    status = tiny.run(series)
    said = capsys.readouterr().err
    check_failed(series, before, status, said, "02_second", "cell 4 of 6", "the kernel died")


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n    pass",
        "try:\n    time.sleep(99)\nexcept KeyboardInterrupt:\n    pass",
        "import signal\n\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(99)",
    ],
    ids=["busy", "catching", "deaf"],
)
def test_a_cell_that_hangs(series, capsys, monkeypatch, code):
    monkeypatch.setattr(worker, "GRACE", 4)
    tiny.write(series, "02_second", f"import time\n\n{code}", "value = 1")
    before, begin = state(series), time.monotonic()
    status = tiny.run(series, "--timeout", "2")
    said = capsys.readouterr().err
    check_failed(series, before, status, said, "02_second", "cell 4", "--timeout")
    assert time.monotonic() - begin < 60


def test_a_notebook_that_ends_without_its_result(series, capsys):
    path = Path(series, "notebooks/02_second.ipynb")
    notebook = json.loads(path.read_text())
    notebook["cells"].pop()
    path.write_text(json.dumps(notebook))
    before = state(series)
    check_failed(series, before, tiny.run(series), capsys.readouterr().err, "without its result")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_the_user(series, number):
    tiny.write(series, "02_second", SLOW, "value = 1")
    before = state(series)
    process = start(series)
    wait_for(Path(series, "started"))
    process.send_signal(number)
    said = process.communicate(timeout=30)[0]
    check_failed(series, before, process.returncode, said, "stopped", "02_second")
    assert process.returncode == 130
    tiny.write(series, "02_second", "value = 1")
    assert tiny.run(series) == 0


def test_a_killed_runner_leaves_no_kernel_and_can_run_again(series):
    tiny.write(series, "02_second", SLOW, "value = 1")
    before = state(series)
    process = start(series)
    wait_for(Path(series, "started"))
    process.kill()
    process.communicate()
    end = time.monotonic() + 15
    while orphans(series) and time.monotonic() < end:
        time.sleep(0.2)
    assert orphans(series) == []
    assert state(series) == before
    tiny.write(series, "02_second", "value = 1")
    assert tiny.run(series) == 0


def test_two_runs_of_one_name_at_once(series, capsys):
    tiny.write(series, "02_second", SLOW, "value = 1")
    first = start(series)
    try:
        wait_for(Path(series, "started"))
        assert tiny.run(series) == 1
        assert f"process {first.pid}" in capsys.readouterr().err
        assert first.poll() is None  # the first goes on undisturbed
        assert tiny.run(series, "--run", "other", "--notebooks", "01") == 0
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=30)


def test_a_killed_publication_is_repaired(series):
    before = state(series)
    reports = Path(series, "reports")
    (reports / "demo").rename(reports / ".demo.old")  # killed between the two renames
    assert tiny.run(series) == 0
    assert state(series) == before
    assert not (reports / ".demo.old").exists()


def test_a_publication_that_fails_puts_the_old_report_back(series, capsys, monkeypatch):
    rename = Path.rename

    def failing(path, target):
        if path.name == ".demo.running":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return rename(path, target)

    tiny.write(series, "03_third", "value = 5")
    before = state(series)
    monkeypatch.setattr(Path, "rename", failing)
    status = tiny.run(series)
    check_failed(series, before, status, capsys.readouterr().err, "Input/output error")
    assert not Path(series, "reports/.demo.old").exists()
    monkeypatch.undo()
    assert tiny.run(series) == 0
    assert "03_third: done and valid" in capsys.readouterr().out


def test_fresh_redoes_all(series, capsys):
    assert tiny.run(series, "--fresh") == 0
    assert capsys.readouterr().out.count("running (--fresh)") == 3


def test_an_earlier_notebook_that_is_lacking_is_named(series, capsys):
    before = state(series)
    status = tiny.run(series, "--run", "new", "--notebooks", "02")
    said = capsys.readouterr().err
    check_failed(series, before, status, said, "02_second reads the results of 01_first", '"01 02"')
    assert not Path(series, "reports/new").exists()


def test_a_partial_run_marks_what_is_stale(series):
    tiny.write(series, "01_first", "value = 9")
    assert tiny.run(series, "--notebooks", "01") == 0
    record = staging.read_record(Path(series, "reports/demo"))
    assert "results of 01_first" in record["notebooks"]["02_second"]["stale"]
    assert record["notebooks"]["03_third"]["stale"] == ""
    assert (
        "Stale: changed: results of 01_first" in Path(series, "reports/demo/index.html").read_text()
    )


def test_each_page_tells_where_its_own_notebook_ran(series, monkeypatch):
    here = staging.read_record(Path(series, "reports/demo"))["notebooks"]["02_second"]
    versions = {"keras": "9.9", "tensorflow": "8.8"}
    state = {"git": {"commit": "f" * 40, "dirty": False}, "versions": versions, "device": "GPU: X1"}
    monkeypatch.setattr(provenance, "where", lambda root: state)
    tiny.write(series, "03_third", "value = 3")
    assert tiny.run(series) == 0
    report = Path(series, "reports/demo")
    entries = staging.read_record(report)["notebooks"]
    assert {name: entries["03_third"][name] for name in state} == state
    assert all(entries["02_second"][name] == here[name] for name in state)
    own, earlier = ((report / f"{name}.html").read_text() for name in ("03_third", "02_second"))
    for text in ("GPU: X1", "at commit ffffffffff", "Keras 9.9, TensorFlow 8.8"):
        assert text in own
        assert text not in earlier
    assert here["device"] in earlier
    index = (report / "index.html").read_text()
    assert "Several devices" in index
    assert "at several commits" in index or here["git"]["commit"] is None
    assert index.count("GPU: X1") == 1  # on its card


def test_what_a_failed_run_of_other_parameters_left_is_not_taken_up(series, capsys):
    fails = "value = 1\n\nassert SEED == 0, 'this seed fails'"
    tiny.write(series, "02_second", fails)
    assert tiny.run(series, "-p", "SEED=5") == 1
    first = Path(series, "reports/.demo.running/results/01_first.csv")
    assert first.read_text() == "seed,value\n5,25\n"
    assert tiny.run(series, "--notebooks", "03", "-p", "EPOCHS=4") == 0
    report = Path(series, "reports/demo")
    assert (report / "results/01_first.csv").read_text() == "seed,value\n0,20\n"
    assert "0,4" in (report / "results/03_third.csv").read_text()
    entries = staging.read_record(report)["notebooks"]
    assert [entry["parameters"]["SEED"] for entry in entries.values()] == [0, 0, 0]
    assert tiny.run(series, "-p", "SEED=5") == 1
    capsys.readouterr()
    assert tiny.run(series, "-p", "SEED=5") == 1  # the same call does carry on
    assert "01_first: done and valid" in capsys.readouterr().out


def test_a_renamed_notebook_leaves_nothing_behind(series, capsys):
    Path(series, "notebooks/03_third.ipynb").unlink()
    tiny.write(series, "04_fourth", "value = 4")
    assert tiny.run(series) == 0
    said = capsys.readouterr().out
    assert "03_third: no longer in notebooks/" in said
    assert "04_fourth: running (not done yet)" in said
    report = Path(series, "reports/demo")
    assert list(staging.read_record(report)["notebooks"]) == ["01_first", "02_second", "04_fourth"]
    left = {path.name for path in report.rglob("*") if "third" in path.name}
    assert left == set()
    assert "03_third" not in (report / "index.html").read_text()
    Path(series, "notebooks/04_fourth.ipynb").unlink()  # removed, and nothing else to do
    assert tiny.run(series) == 0
    assert not (report / "04_fourth.html").exists()


def test_a_notebook_that_is_forgotten_takes_its_scores_along(series):
    folder = Path(series, "reports/demo")
    scores = folder / "results/metrics.csv"
    scores.write_text("notebook,value\n01_first,0.5\n03_third,0.7\n")
    record = staging.read_record(folder)
    steps.forget("03_third", folder, record)
    assert scores.read_text() == "notebook,value\n01_first,0.5\n"
    assert list(record["notebooks"]) == ["01_first", "02_second"]
    left = {path.name for path in folder.rglob("*") if "third" in path.name}
    assert left == {"03_third.html"}  # pages are made anew in any case


def in_small_space(root, options, prepare):
    """Run the series where reports/ is a file system of its own; (process, report unharmed?).

    options: of mount; prepare: shell commands between the copy of the last report and the run.
    """
    script = f"""
    cp -R reports earlier && mount -t tmpfs -o size=8m none reports || exit 77
    cp -R earlier/demo reports/demo; {prepare}; mount -o remount,{options} reports || exit 77
    {sys.executable} {tiny.__file__} {root}; status=$?
    diff -r earlier/demo reports/demo > difference || status=99
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


def free_only(size):
    """Shell commands that fill reports/ until `size` bytes are free."""
    return f"head -c $(($(stat -f -c '%a*%S' reports) - {size})) /dev/zero > reports/filler"


@pytest.mark.parametrize("when", ["copying", "running", "writing pages"])
def test_a_full_disk(series, when):
    folder = Path(series, "reports/demo")
    kept = [p for name in staging.KEPT for p in (folder / name).rglob("*") if p.is_file()]
    pages = list(folder.glob("*.html"))
    room = {"copying": 8192, "running": blocks(kept) - 8192, "writing pages": blocks(kept) + 49152}
    assert blocks(pages) > 49152 + 16384  # else the pages would fit
    tiny.write(series, "03_third", "value = 5 * SEED")
    done = in_small_space(series, "rw", free_only(room[when]))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left" in done.stderr
    assert ("03_third: done" in done.stdout) == (when == "writing pages")
    assert orphans(series) == []


def test_an_unwritable_folder(series):
    tiny.write(series, "03_third", "value = 5 * SEED")
    done = in_small_space(series, "ro", "true")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Read-only file system" in done.stderr
    assert "running" not in done.stdout


def test_reports_is_not_a_folder(series, capsys):
    Path(series, "file").touch()
    assert tiny.run(series, "--reports", "file") == 1
    assert "file" in capsys.readouterr().err


def test_no_space_for_the_pages_wherever_it_happens(series, capsys, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    tiny.write(series, "03_third", "value = 5")
    before = state(series)
    monkeypatch.setattr(site, "write_text", full)
    status = tiny.run(series)
    said = capsys.readouterr().err
    check_failed(series, before, status, said, "the disk is full", "free some space")
    monkeypatch.undo()
    assert tiny.run(series) == 0
    assert "03_third: done and valid" in capsys.readouterr().out
    assert "0,5" in Path(series, "reports/demo/results/03_third.csv").read_text()


def test_run_json_tells_the_whole_story_without_paths(finished):
    text = Path(finished, "reports/demo/run.json").read_text()
    record = json.loads(text)
    assert str(finished) not in text
    assert list(record["notebooks"]) == ["01_first", "02_second", "03_third"]
    key = record["notebooks"]["02_second"]["key"]
    assert key["helpers/lines.py"] == provenance.file_hash(finished / "helpers/lines.py")
    assert record["hashes"]["lock"] == provenance.file_hash(finished / "requirements.lock")
    assert record["seeds"] == [0]
    assert {"git", "versions", "device", "data", "pages", "finished", "seconds"} <= set(record)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("first.unlink()", ["missing images: 1, the first SOB_B_A-14-22549AB-40-001.png"]),
        ("first.rename(first.with_stem('new'))", ["new images: 1, the first new.png"]),
        ("first.write_bytes(b'x')", ["files have other content"]),
        ("import shutil\n\nshutil.rmtree(folder)", ["DATA names", "there is no folder"]),
    ],
    ids=["removed", "renamed", "changed", "all removed"],
)
def test_data_removed_while_running(tmp_path, capsys, code, words):
    root = tiny.project(tmp_path / "series")
    folder = tiny.with_data(root, tmp_path / "images")
    options = ["--notebooks", "01 03", "--run", "demo2", "--data", str(folder)]
    assert tiny.run(root, *options) == 0
    report = Path(root, "reports/demo2")
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    find = (
        f"from pathlib import Path\n\nfolder = Path({str(folder)!r})\nfirst = min(folder.iterdir())"
    )
    tiny.write(root, "03_third", f"{find}\n{code}\nvalue = 1")
    status = tiny.run(root, *options)
    said = capsys.readouterr().err
    assert status == 1
    for word in ("data changed while running, after 01_first had read it", *words):
        assert word in said
    assert {p: p.read_bytes() for p in report.rglob("*") if p.is_file()} == before
    assert orphans(root) == []


@pytest.mark.parametrize("origin", ["--data", "BREAKHIS_DIR"])
def test_where_the_images_lie_is_told_nowhere(tmp_path, monkeypatch, origin):
    root = tiny.project(tmp_path / "series")
    folder = tiny.with_data(root, tmp_path / "secret place" / "images")
    options = ["--notebooks", "01", "--run", "mine"]
    if origin == "--data":
        options += ["--data", str(folder)]
    else:
        monkeypatch.setenv("BREAKHIS_DIR", str(folder))
    assert tiny.run(root, *options) == 0
    report = Path(root, "reports/mine")
    for name in ("run.json", "01_first.html", "index.html"):
        assert "secret place" not in (report / name).read_text(), name
    assert ">images" in (report / "01_first.html").read_text()  # what the cell printed
    entry = staging.read_record(report)["notebooks"]["01_first"]
    name = "images" if origin == "--data" else ""
    assert entry["parameters"]["DATA"] == entry["key"]["parameter DATA"] == name
    assert len(entry["key"]["data"]) == 64
    begin = (report / "run.json").stat().st_mtime_ns
    assert tiny.run(root, *options) == 0
    assert (report / "run.json").stat().st_mtime_ns == begin  # nothing to do


def test_every_helper_that_a_notebook_loads_counts_for_its_key():
    # what Python itself loads when a real notebook imports its helpers, against what is hashed
    notebook = notebooks.read(tiny.ROOT / "notebooks/02_patient_split.ipynb")
    code = next(notebooks.source(c) for c in notebook["cells"] if c["cell_type"] == "code")
    said = "import sys\nprint(*[m.__file__ for n, m in sys.modules.items() if n[:8] == 'helpers.'])"
    run = [sys.executable, "-c", f"{code}\n{said}"]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tiny.ROOT).stdout
    assert set(map(Path, loaded.split())) <= set(notebooks.helpers_of(notebook, tiny.ROOT))


def test_a_hash_ignores_outputs_but_not_code(finished):
    source = notebooks.read(finished / "notebooks/01_first.ipynb")
    executed = notebooks.read(finished / "notebooks/01_first.ipynb")
    executed["cells"][1]["execution_count"] = 5
    assert provenance.notebook_hash(source) == provenance.notebook_hash(executed)
    executed["cells"][1]["source"] = "SEED = 1"
    assert provenance.notebook_hash(source) != provenance.notebook_hash(executed)


def test_magics_do_not_hide_imports():
    code = "%matplotlib inline\n!ls\nfrom helpers import shapes, lines\nimport helpers.text.deep"
    assert notebooks.imports(notebooks.plain(code)) == {"shapes", "lines", "text.deep"}
