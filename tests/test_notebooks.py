"""The style of the notebooks, as rules on their JSON."""

import ast
import re
import statistics
from pathlib import Path

import pytest

from helpers.runner import notebooks

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
SERIES = [path for path in PATHS if path.stem[0].isdigit()]
MAX_CELLS = 44  # the design asks for about 35


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    return notebooks.read(path)["cells"]


def is_code(cell):
    return cell["cell_type"] == "code"


def is_parameters(cell):
    return "parameters" in cell["metadata"].get("tags", [])


def lines(cell):
    """Lines of code that do something: no blanks, no comments."""
    text = notebooks.source(cell).splitlines()
    return [line for line in text if line.strip() and not line.strip().startswith("#")]


def test_the_series_is_whole():
    assert [path.stem for path in SERIES] == [
        "01_eda", "02_patient_split", "03_baseline_cnn", "04_transfer_learning",
        "05_magnification", "06_tumor_types", "07_error_analysis",
    ]  # fmt: skip


def test_one_title_a_question_and_a_table_come_first(cells):
    heads = [line for c in cells if not is_code(c) for line in notebooks.source(c).splitlines()]
    assert sum(bool(re.match(r"# \S", line)) for line in heads) == 1
    blocks = notebooks.source(cells[0]).strip().split("\n\n")
    assert blocks[0].startswith("# ")
    assert blocks[1].strip().endswith("?"), "the first paragraph is the question"
    assert any(block.lstrip().startswith("|") for block in blocks), "a table of inputs, outputs"
    first = notebooks.source(cells[0]).lower()
    for word in ("laptop", "gpu"):
        assert word in first, f"the first cell should name {word!r}"


def test_imports_are_plain(cells):
    code = "\n".join(notebooks.source(cell) for cell in cells if is_code(cell))
    for banned in ("sys.path", "filterwarnings(", "SMOKE", "%pip", "!pip", "except:"):
        assert banned not in code
    first = next(cell for cell in cells if is_code(cell))
    tree = ast.parse(notebooks.source(first))
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)


def test_parameters_are_upper_case_literals_with_a_comment(cells, path):
    found = notebooks.parameters(notebooks.read(path), path.stem)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in found)
    assert found["RESULTS"] == "reports/demo/results"
    assert "SEED" in found
    cell = next(cell for cell in cells if is_parameters(cell))
    for node in ast.parse(notebooks.source(cell)).body:
        last = notebooks.source(cell).splitlines()[node.end_lineno - 1]
        assert "#" in last or last.startswith("SEED"), f"no unit or meaning: {last}"


def test_parameters_are_checked_in_the_next_cell(cells):
    place = next(i for i, cell in enumerate(cells) if is_parameters(cell))
    following = next(cell for cell in cells[place + 1 :] if is_code(cell))
    assert "check(" in notebooks.source(following)


def test_a_sentence_stands_before_every_code_cell(cells):
    for before, cell in zip(cells, cells[1:], strict=False):
        if is_code(cell) and not is_parameters(before):
            assert not is_code(before), f"no sentence before: {notebooks.source(cell)[:60]!r}"


def test_a_sentence_stands_after_every_figure(cells):
    for place, cell in enumerate(cells):
        code = notebooks.source(cell)
        shows = is_code(cell) and re.search(r"^\s*show\(", code, re.M)
        if shows and "text(" not in code.rpartition("show(")[2]:  # code may write the sentence
            after = cells[place + 1]
            assert not is_code(after), f"no sentence after: {code[:60]!r}"
            assert not notebooks.source(after).startswith("#"), f"a head follows: {code[:60]!r}"


def test_cells_are_few_and_short(cells):
    assert len(cells) <= MAX_CELLS
    code = [cell for cell in cells if is_code(cell) and not is_parameters(cell)]
    longest = max(code, key=lambda cell: len(lines(cell)))
    assert len(lines(longest)) <= 25, notebooks.source(longest)[:60]
    assert statistics.median(len(lines(cell)) for cell in code[1:]) <= 8  # after the imports


def test_sections_end_with_findings_limitations_and_results(cells, path):
    text = [notebooks.source(cell) for cell in cells]
    heads = [line for t in text for line in t.splitlines() if line.startswith("## ")]
    assert heads[-2:] == ["## Findings", "## Limitations"]
    assert "Next:" in "\n".join(text[-2:]) or path == SERIES[-1]
    assert is_code(cells[-1])
    assert "save_summary(" in text[-1]
    earlier = [notebooks.source(cell) for cell in cells[:-1] if is_code(cell)]
    assert not re.search(r"\b(save_\w+|write_\w+)\(", "\n".join(earlier)), "results come last"


def test_findings_are_written_by_code(cells):
    place = next(i for i, c in enumerate(cells) if "## Findings" in notebooks.source(c))
    typed = notebooks.source(cells[place]).partition("## Findings")[2]
    assert not re.search(r"\d", typed)
    end = next(i for i, c in enumerate(cells) if "## Limitations" in notebooks.source(c))
    assert any("text(" in notebooks.source(cell) for cell in cells[place:end] if is_code(cell))


def test_figures_go_through_one_helper(cells):
    code = "\n".join(notebooks.source(cell) for cell in cells if is_code(cell))
    assert "plt.show(" not in code
    assert "display(" not in code
    assert "partial(plots.show" in code or "partial(f, badge" in code
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    shown = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "show"]
    keys = [k.value for c in shown for k in c.keywords if k.arg == "key"]
    assert len(keys) == 1, "one key figure for the index"


def test_files_are_stripped(path, cells):
    notebook = notebooks.read(path)
    assert "papermill" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in filter(is_code, cells):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert set(cell["metadata"]) <= {"tags"}


def test_needs_are_earlier_notebooks_of_the_series(path):
    names = [p.stem for p in SERIES]
    wanted = notebooks.needs(notebooks.read(path))
    assert set(wanted) <= set(names)
    if path in SERIES:
        assert all(name < path.stem for name in wanted)
        assert wanted or path == SERIES[0]


@pytest.mark.parametrize("profile", ["smoke", "demo", "full"])
def test_profiles_hold_known_parameters_of_the_right_type(profile):
    defaults = {p.stem: notebooks.parameters(notebooks.read(p), p.stem) for p in SERIES}
    chosen = notebooks.profile(FOLDER.parent, profile, defaults)
    assert set(chosen) == set(defaults)


def test_no_result_is_typed_into_the_text(cells):
    # a share or a score in Markdown that no code wrote, such as "AUC of 0.93" or "accuracy 93%"
    pattern = r"\b(AUC|accuracy|sensitivity|specificity|rate)\b[^.|\n]{0,20}\b(0\.\d\d|\d\d ?%)"
    for cell in cells:
        if not is_code(cell):
            found = re.search(pattern, notebooks.source(cell))
            assert not found, found and found[0]
