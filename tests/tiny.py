"""A series of three tiny notebooks in a folder of its own, for the tests of the runner."""

import shutil
import sys
from pathlib import Path
from unittest import mock

import nbformat
import pandas as pd
from PIL import Image

from helpers import data
from runner import provenance
from runner.series import main

ROOT = Path(__file__).parents[1]
HERE = {
    "commit": "f" * 7,
    "backend": "JAX 9.9",
    "keras": "8.8",
    "device": "GPU X1",
    "idle": "Idle.",
}
PARAMETERS = 'RESULTS = "reports/runs/demo/results"\nSEED = 0\nMAGNIFICATIONS = [40, 100]  # X'
LAST = """import json
from pathlib import Path

out = Path(RESULTS)
(out / "summaries").mkdir(parents=True, exist_ok=True)
(out / "{name}.csv").write_text(f"seed,value\\n{{SEED}},{{value}}\\n")
summary = {{"question": "Why?", "finding": f"It is {{value}}.", "headline": None}}
(out / "summaries" / "{name}.json").write_text(json.dumps(summary))"""
FIGURE = """import base64, io
from PIL import Image
from IPython.display import display

buffer = io.BytesIO()
Image.new("RGB", (60, 40), "teal").save(buffer, format="PNG")
details = {"alt": "A teal field", "caption": "Teal.", "key": True, "tissue": True}
png = base64.b64encode(buffer.getvalue()).decode()
display({"image/png": png}, metadata={"image/png": details}, raw=True)"""


def write(root, name, *code, needs=(), parameters=PARAMETERS):
    """Write notebook `name` with its parameters, the cells `code` and a last cell of results."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell(f"# About {name}\n\nHow many?\n\n| in | out |\n|---|---|\n|1|2|")]
    if parameters:
        cells.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [v4.new_markdown_cell("## Counting"), *(v4.new_code_cell(text) for text in code)]
    cells.append(v4.new_code_cell(LAST.format(name=name)))
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "series": {"needs": list(needs)},
    }
    notebook = v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, Path(root, "notebooks", f"{name}.ipynb"))


def project(root):
    """Make the series under `root`: 02 reads 01 and uses helpers/shapes.py, 03 stands alone."""
    for folder in ("notebooks/params/demo", "notebooks/params/smoke", "helpers"):
        Path(root, folder).mkdir(parents=True)
    Path(root, "requirements.lock").write_text("numpy==2\n")
    Path(root, "notebooks/params/smoke/01_first.yaml").write_text("SEED: 7\n")
    Path(root, "helpers/__init__.py").touch()
    Path(root, "helpers/shapes.py").write_text("def area(x):\n    return 2 * x * x\n")
    write(root, "01_first", "value = 20 + SEED", FIGURE)
    read = 'seen = open(f"{RESULTS}/01_first.csv").read()'
    use = "from helpers.shapes import area\n\nvalue = area(len(seen))"
    write(root, "02_second", read, use, needs=["01_first"])
    extra = "\nEPOCHS = 1\nRATE = 0.5\nFOLDS = []\nNAME = 'x'"
    write(root, "03_third", "value = EPOCHS", parameters=PARAMETERS + extra)
    return Path(root)


def index_images(root, folder):
    """Write what 01 hands over of the images of `folder` to `root`/planted."""
    files = sorted(folder.glob("*.png"))
    rows = [
        data.parse_name(f.stem) | {"path": f.name, "width_px": 700, "height_px": 460} for f in files
    ]
    index = pd.DataFrame(rows).assign(pixel_sha256=[f.stem for f in files], duplicate_of="")
    facts = Path(root, "planted"), "01_first", folder, index, "sample", "Two images"
    run = data.Run(*facts, data.fingerprint(index))
    data.save_run(run, pd.DataFrame(columns=["path", "kind", "reason"]))


def with_data(root, folder):
    """Let 01 of the series under `root` read images, those of `folder`, which is made."""
    folder.mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (700, 460), (9 * number, 0, 0)).save(
            folder / f"SOB_B_A-14-22549AB-40-00{number}.png"
        )
    index_images(root, folder)
    read = 'import shutil, os\n\nprint(DATA or os.environ["BREAKHIS_DIR"])\nvalue = 1'
    copy = 'shutil.copytree("planted", RESULTS, dirs_exist_ok=True);'
    write(root, "01_first", read, copy, parameters=f'{PARAMETERS}\nDATA = ""')
    return folder


def run(root, *argv):
    """Run the command on the series under `root`; the exit status. Keras is not asked: see HERE."""
    with mock.patch.object(provenance, "where", return_value=HERE):
        return main(list(argv), root=root)


def copy(source, target):
    """A copy of a series and its reports."""
    return Path(shutil.copytree(source, target))


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
