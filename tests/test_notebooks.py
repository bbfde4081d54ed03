"""The style of the notebooks, as rules on their JSON: nothing is executed here."""

import ast
import json
import re
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "notebooks"
PROFILES = sorted((FOLDER / "params").glob("*/*.yaml"))
PATHS = sorted(FOLDER.glob("*.ipynb"))
SERIES = [path for path in PATHS if path.stem[0].isdigit()]
BANNED = (
    "plt.show(", "display(", "sys.path", "filterwarnings(", "SMOKE", "%pip", "!pip", "except:",
)  # fmt: skip
SILENT = {"plots", "results", "print"}  # a last expression of these is no look at data
ACTIONS = {"compile", "fit", "summary", "set_seed", "set_random_seed", "append", "update"}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def cells(notebook):
    return notebook["cells"]


def source(cell):
    return "".join(cell["source"])


def is_code(cell):
    return cell["cell_type"] == "code"


def is_parameters(cell):
    return "parameters" in cell["metadata"].get("tags", [])


def code_of(cells):
    return [source(cell) for cell in cells if is_code(cell)]


def calls(code):
    """The calls in some code: list of (dotted name, node)."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), node) for node in nodes]


def n_lines(code):
    """Lines of code that are neither blank nor a comment."""
    lines = [line.strip() for line in code.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def says_something(cell):
    """Whether a Markdown cell has more than a heading."""
    lines = source(cell).splitlines()
    return not is_code(cell) and any(line.strip() and not line.startswith("#") for line in lines)


def parameters(path):
    """The literals of the cell tagged `parameters`: dict name -> value."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in found if is_parameters(cell)]
    nodes = ast.parse(source(cell)).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in nodes}


def test_the_series_is_whole():
    assert [path.stem for path in SERIES] == [
        "01_eda", "02_patient_split", "03_baseline_cnn", "04_transfer_learning",
        "05_magnification", "06_tumor_types", "07_error_analysis",
    ]  # fmt: skip


def test_one_title_a_question_and_a_table_come_first(cells):
    heads = [line for c in cells if not is_code(c) for line in source(c).splitlines()]
    assert sum(line.startswith("# ") for line in heads) == 1
    blocks = source(cells[0]).strip().split("\n\n")
    assert blocks[0].startswith("# ")
    assert blocks[1].strip().endswith("?"), "the first paragraph is the question"
    assert any(block.lstrip().startswith("|") for block in blocks), "a table of inputs, outputs"
    for word in ("laptop", "gpu"):
        assert word in source(cells[0]).lower(), f"the first cell should name {word!r}"


def test_cells_are_many_and_short(cells, path):
    assert len(cells) <= 70
    assert len(cells) >= 36 or path not in SERIES
    lengths = {code: n_lines(code) for code in code_of(cells)}
    longest = max(lengths, key=lambda code: len(code.splitlines()))  # as a reader sees it
    assert len(longest.splitlines()) <= 25, f"{len(longest.splitlines())} lines: {longest[:60]!r}"
    assert statistics.median(lengths.values()) <= 6


def test_imports_stand_in_the_first_cell_and_few_are_from_helpers(cells):
    first, *others = code_of(cells)
    kinds = ast.Import | ast.ImportFrom
    assert all(isinstance(node, kinds) for node in ast.parse(first).body)
    for code in others:
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(code))), code[:60]
    names = []
    for node in ast.parse(first).body:
        module = getattr(node, "module", None) or ""
        full = [f"{module}.{alias.name}".strip(".") for alias in node.names]
        names += [name for name in full if name.split(".")[0] == "helpers"]
        assert not any(name.split(".")[0] == "runner" for name in full), "no notebook imports it"
    assert len(names) <= 8, names


def test_nothing_that_is_banned_stands_in_the_code(cells):
    code = "\n".join(code_of(cells))
    assert [word for word in BANNED if word in code] == []


def test_parameters_are_upper_case_literals_with_a_comment(cells, path):
    found = parameters(path)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in found)
    assert found["RESULTS"] == "reports/runs/demo/results"
    assert "SEED" in found or "SEEDS" in found
    text = source(next(cell for cell in cells if is_parameters(cell)))
    for node in ast.parse(text).body:
        lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
        assert "#" in "".join(lines), f"no unit or meaning: {lines[0]}"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_profiles_hold_known_parameters_of_the_right_type(profile):
    known = parameters(FOLDER / f"{profile.stem}.ipynb")
    for name, value in yaml.safe_load(profile.read_text(encoding="utf-8")).items():
        assert name in known, f"no parameter {name}"
        allowed = (int, float) if isinstance(known[name], float) else type(known[name])
        assert isinstance(value, allowed), f"{name} should be like {known[name]!r}"


def test_a_sentence_stands_before_every_code_cell(cells):
    assert not is_code(cells[0])
    for before, cell in pairwise(cells):
        if is_code(cell):
            assert says_something(before), f"no sentence before: {source(cell)[:60]!r}"


def test_a_sentence_stands_after_every_figure(cells):
    for place, cell in enumerate(cells):
        code = source(cell)
        if not is_code(cell) or "plots.show(" not in code:
            continue
        if "plots.text(" in code.rpartition("plots.show(")[2]:
            continue  # code writes the sentence
        after = cells[place + 1]
        assert says_something(after), f"no sentence after: {code[:60]!r}"
        assert not source(after).startswith("#"), f"a heading follows: {code[:60]!r}"


def test_one_key_figure(cells):
    shown = [node for name, node in calls("\n".join(code_of(cells))) if name == "plots.show"]
    assert shown
    keys = [word for node in shown for word in node.keywords if word.arg == "key"]
    assert len(keys) == 1, "one key figure for the index"


def test_data_are_seen(cells):
    bare = []
    for code in code_of(cells):
        last = ast.parse(code).body[-1]
        if isinstance(last, ast.Expr):
            root = re.match(r"\w*", ast.unparse(last.value))[0]
            function = getattr(last.value, "func", None)
            if root not in SILENT and getattr(function, "attr", root) not in ACTIONS:
                bare.append(ast.unparse(last.value))
    assert len(bare) >= 2, f"bare last expressions that show data: {bare}"


def test_sections_end_with_findings_limitations_and_results(cells, path):
    text = [source(cell) for cell in cells]
    heads = [line for c in cells if not is_code(c) for line in source(c).splitlines()]
    assert [line for line in heads if line.startswith("## ")][-2:] == [
        "## Findings", "## Limitations",
    ]  # fmt: skip
    assert "Next:" in "\n".join(text[-3:]) or path == SERIES[-1]
    assert is_code(cells[-1])
    last = ast.parse(text[-1]).body[-1]
    assert [name for name, _ in calls(ast.unparse(last))][0].endswith("save_summary")
    earlier = "\n".join(code_of(cells[:-1]))
    assert not re.search(r"\bresults\.(save|write)_\w+\(", earlier), "results come last"


def test_what_was_expected_is_closed_by_code(cells):
    expected = ""
    for cell in cells:
        text = source(cell)
        if is_code(cell):
            expected = "" if re.search(r"found\(|Found|verdict\[", text) else expected
        elif "**Expected" in text or "## Findings" in text:
            assert not expected, f"nothing says what was found: {expected[:80]!r}"
            expected = text.partition("**Expected")[2]


def test_findings_are_written_by_code(cells):
    place = next(i for i, c in enumerate(cells) if "## Findings" in source(c))
    end = next(i for i, c in enumerate(cells) if "## Limitations" in source(c))
    typed = source(cells[place]).partition("## Findings")[2]
    typed += "".join(source(c) for c in cells[place + 1 : end] if not is_code(c))
    assert not re.search(r"\d", typed)
    assert "plots.text(" in "\n".join(code_of(cells[place:end]))


def test_no_result_is_typed_into_the_text(cells):
    # a share or a score in Markdown that no code wrote, such as "AUC of 0.93" or "accuracy 93%"
    pattern = r"\b(AUC|accuracy|sensitivity|specificity|rate)\b[^.|\n]{0,20}\b(0\.\d\d|\d\d ?%)"
    for cell in cells:
        found = None if is_code(cell) else re.search(pattern, source(cell))
        assert not found, found and found[0]


def test_files_are_stripped(notebook, cells):
    assert "papermill" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in filter(is_code, cells):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert set(cell["metadata"]) <= {"tags"}


def test_needs_are_earlier_notebooks_of_the_series(notebook, path):
    needs = notebook["metadata"]["series"]["needs"]
    assert set(needs) <= {p.stem for p in SERIES if p.stem < path.stem or path not in SERIES}
    assert needs or path == SERIES[0]
