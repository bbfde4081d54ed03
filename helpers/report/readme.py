"""`python -m helpers.report.readme`: put figures and results of the committed runs into README.md.

Nobody types a result: the text between the markers in README.md (``<!-- name:start -->`` to
``<!-- name:end -->``) is rendered from reports/demo, figures of the phantom, and from
reports/sample-metrics.csv.
"""

import base64
import re
import sys
from itertools import product
from pathlib import Path

from helpers import metrics
from helpers.charts import spell
from helpers.report import pages
from helpers.results import ROOT, read_table, write_atomic
from helpers.splits import PROTOCOLS, label
from helpers.studies import ladder, rungs

FIGURES = ("01_eda", "02_patient_split")  # whose key figure the README shows
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg"}
COLUMNS = {
    "AUC, images": ("image", "auc"),
    "AUC, patients": ("accession", "auc"),
    "Balanced accuracy, patients": ("accession", "balanced_accuracy"),
}
ROWS = (
    ("02_patient_split", ("probe",), PROTOCOLS),
    ("03_baseline_cnn", ladder.FLOOR, ("accession",)),
    ("04_transfer_learning", (*rungs.RUNGS, "selected", "selected_threshold"), ("accession",)),
)


def save_figures(demo: Path) -> list[Path]:
    """Write the key figures of the executed notebooks under ``demo/figures``."""
    saved = []
    for name in FIGURES:
        data, mime, _ = pages.key_figure(pages.load(demo / "executed" / f"{name}.ipynb"))
        path = demo / "figures" / f"{name}.{SUFFIXES[mime]}"
        write_atomic(path, lambda file, data=data: file.write_bytes(base64.b64decode(data)))
        saved.append(path)
    return saved


def figure_text(root: Path) -> str:
    """Markdown of the saved figures, each labelled as phantom."""
    found = sorted((root / "reports/demo/figures").iterdir())
    what = {
        "01_eda": "One phantom image of each tumour type at each magnification",
        "02_patient_split": "One model under four kinds of split, beside published results",
    }
    blocks = []
    for path in found:
        caption = f"{what[path.stem]}. Phantom: synthetic images, not tissue."
        blocks.append(f"![{caption}]({path.relative_to(root).as_posix()})\n\n*{caption}*")
    return "\n\n".join(blocks)


def sample_table(frame) -> str:
    """Markdown table of malignancy scores over all magnifications, a row a model and split."""
    frame = frame[(frame["task"] == "malignancy") & (frame["magnification"].astype(str) == "all")]
    lines = [f"| Notebook | Model | Split | {' | '.join(COLUMNS)} |", "| --- " * 6 + "|"]
    for notebook, models, protocols in ROWS:
        mine = frame[frame["notebook"] == notebook]
        for model, protocol in product(models, protocols):
            rows = mine[(mine["model"] == model) & (mine["protocol"] == protocol)]
            if len(rows):
                cells = [cell(rows, *which) for which in COLUMNS.values()]
                head = [notebook[:2], spell(model), label(protocol)]
                lines.append(f"| {' | '.join(head + cells)} |")
    return "\n".join(lines)


def cell(rows, level: str, metric: str) -> str:
    """One score with its interval, or a dash."""
    found = rows[(rows["level"] == level) & (rows["metric"] == metric)]
    return metrics.as_text(found.iloc[0]) if len(found) else "–"


def sample_text(frame) -> str:
    """The table with the number of images and patients that it rests on."""
    whole = frame[(frame["magnification"].astype(str) == "all") & (frame["task"] == "malignancy")]
    images = whole.loc[whole["level"] == "image", "n_images"].max()
    patients = whole.loc[whole["level"] == "accession", "n_groups"].max()
    note = (
        f"{images} real images of {patients} patients; 95% intervals from a bootstrap over "
        "patients."
    )
    return f"{note}\n\n{sample_table(frame)}"


def replace(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the markers of ``name``."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if start not in text or end not in text:
        raise ValueError(f"README.md lacks the markers {start} and {end}: put them back.")
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{start}\n{content}\n{end}", text, flags=re.DOTALL)


def render(root: Path = ROOT) -> str:
    """README.md as it should be, from what is committed."""
    text = replace((root / "README.md").read_text(encoding="utf-8"), "figures", figure_text(root))
    frame = read_table(root / "reports", "sample-metrics.csv")
    return replace(text, "sample-results", sample_text(frame))


def main() -> int:
    """Save the figures where the demo has just been run, and rewrite README.md."""
    if (ROOT / "reports/demo/executed").is_dir():
        save_figures(ROOT / "reports/demo")
    write_atomic(ROOT / "README.md", lambda file: file.write_text(render(), encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
