"""The pages of a run as HTML that needs no network: one a notebook, an index, the list of runs."""

import os
import re
from datetime import datetime
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
import yaml
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters import text_base64

from helpers import results, scores, splits
from runner import audit, provenance

TEMPLATES = Path(__file__).with_name("templates")
LOG = re.compile(  # what is no result: overwritten lines, logs, objects that a cell returned
    r"(?m)[^\n]*\r|^(?:Epoch \d+/|\d+/\d+ - |[WIEF]\d{4} |WARNING|INFO|DEBUG|\d{4}-\d\d-\d\d[ T]"
    r"\d\d:|\w*Path\(|<[\w.]+[ >]|.*(?:━|█|it/s\]|/step)).*$"
)
FILTERS = {
    "day": lambda iso: f"{datetime.fromisoformat(iso):%d %B %Y, %H:%M} UTC".lstrip("0"),
    "duration": lambda s: f"{s // 60:.0f} min {s % 60:02.0f} s" if s >= 60 else f"{s:.0f} s",
    "label": splits.label, "as_text": scores.as_text, "text_base64": text_base64,
    "without_logs": lambda text: LOG.sub("", text).strip(),
}  # fmt: skip


def page(template, **values):
    """The text of a template, for HTML with values escaped."""
    loader = jinja2.FileSystemLoader([TEMPLATES, TEMPLATES / "series"])
    env = jinja2.Environment(loader=loader, trim_blocks=True, autoescape=lambda n: ".html" in n)
    env.filters |= FILTERS
    cite = yaml.safe_load((results.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return env.get_template(template).render(find=scores.find, cite=cite, **values)


def metrics_of(folder):
    path = folder / "results" / "metrics.csv"
    return pd.read_csv(path, dtype={"magnification": str}) if path.exists() else None


def write_pages(root, folder, record, tissue=True):
    """Write the pages of the run in `folder`. tissue: show what is marked as pictures of tissue."""
    cards, made = [], {}
    for name, entry in record["notebooks"].items():
        notebook = nbformat.read(folder / "executed" / f"{name}.ipynb", 4)
        summary, head = audit.load(folder / f"results/summaries/{name}.json"), notebook.cells[0]
        title, _, head.source = (head.source + "\n\n\n\n").split("\n\n", 2)  # _: the question
        title = title.removeprefix("# ")
        cards.append({**entry, **summary, "name": name, "title": title, "notebook": notebook})
    values = {"run": record, "cards": cards, "tissue": tissue}
    for place, card in enumerate(cards):
        body, heads = render(card["notebook"], record["notebooks"], tissue)
        made[card["name"]] = page("page.html.j2", place=place, heads=heads, body=body, **values)
    made["index"] = page("run.html.j2", **values, metrics=metrics_of(folder))
    hidden = places(root, folder, record["run"])
    for name, text in made.items():
        for path in sorted(hidden, key=len, reverse=True):
            text = text.replace(path, hidden[path])
        (folder / f"{name}.html").write_text(text, encoding="utf-8")


def places(root, folder, run):
    """Paths of this machine that pages may hold, and what is shown in their place."""
    hidden = dict.fromkeys((str(folder), os.path.relpath(folder, root)), f"reports/runs/{run}")
    hidden |= {f"{folder.parent}/": "reports/runs/", f"{root}/": "", str(root): "."}
    named = audit.load(folder / "results/data.json").get("folder"), os.environ.get("BREAKHIS_DIR")
    for data in filter(None, named):
        hidden |= {str(path): path.name for path in (Path(data), Path(root, data).resolve())}
    return hidden | {f"{Path.home()}/": "~/"}


def render(notebook, known, tissue):
    """HTML of cells, Findings first, with links to `known` pages; (level, id, HTML) of headings."""
    where = {"template_name": "series", "extra_template_basedirs": [str(TEMPLATES)]}
    exporter = HTMLExporter(**where, filters=FILTERS)
    html, _ = exporter.from_notebook_node(notebook, {"tissue": tissue})
    # From heading to heading: both stand in a section of prose, so that what is left is balanced.
    if found := re.search(r'<h2 id="Findings">.*?(?=<h2 )', html, re.DOTALL):
        html = f'<section class="prose">{found[0]}</section><hr>{html.replace(found[0], "")}'
    for name in known:
        html = html.replace(f'href="{name}.ipynb', f'href="{name}.html')
    return Markup(html), re.findall(r'<h([23]) id="([^"]+)">(.*?)<a class="anchor', html)


def write_runs(runs, root):
    """Write the index of all runs, the newest first, with what has changed since each."""
    rows = []
    for path in sorted(runs.glob("[!.]*/run.json"), key=os.path.getmtime, reverse=True):
        record, changed = audit.load(path), set()
        for name, entry in record["notebooks"].items():
            source = root / "notebooks" / f"{name}.ipynb"
            now = provenance.code_key(nbformat.read(source, 4), root) if source.exists() else {}
            changed |= {part for part, _ in now.items() - entry["key"].items()}
        rows.append((record, sorted(changed)))
    (runs / "index.html").write_text(page("runs.html.j2", rows=rows), encoding="utf-8")
