"""The pages of a run as HTML that needs no network: one a notebook, an index, the list of runs."""

import os
import re
from datetime import datetime
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from markupsafe import Markup
from nbconvert import HTMLExporter

from helpers import scores, splits
from runner import audit, provenance

TEMPLATES = Path(__file__).with_name("templates")
LOG = re.compile(  # what is no result: overwritten lines, logs, objects that a cell returned
    r"[^\n]*\r|^(?:Epoch \d+/|\d+/\d+ - |[WIEF]\d{4} |WARNING|INFO|DEBUG|\d{4}-\d\d-\d\d[ T]\d\d:|"
    r"\w*Path\(|<[\w.]+[ >]|.*(?:━|█|it/s\]|/step)).*$",
    re.MULTILINE,
)
FILTERS = {
    "day": lambda iso: f"{datetime.fromisoformat(iso):%d %B %Y, %H:%M} UTC".lstrip("0"),
    "duration": lambda s: f"{s // 60:.0f} min {s % 60:02.0f} s" if s >= 60 else f"{s:.0f} s",
    "label": splits.label, "as_text": scores.as_text,
}  # fmt: skip


def page(template, **values):
    """The text of a template, for HTML with values escaped."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, TEMPLATES / "series"]), trim_blocks=True,
        autoescape=lambda name: ".html" in name,
    )  # fmt: skip
    env.filters |= FILTERS
    return env.get_template(template).render(find=scores.find, **values)


def metrics_of(folder):
    """The table metrics.csv of a run; None where it has none."""
    path = folder / "results" / "metrics.csv"
    return pd.read_csv(path, dtype={"magnification": str}) if path.exists() else None


def write_pages(root, folder, record, tissue=True):
    """Write the pages of the run in `folder`. tissue: show what is marked as pictures of tissue."""
    cards, made = [], {}
    for name, entry in record["notebooks"].items():
        notebook = nbformat.read(folder / "executed" / f"{name}.ipynb", 4)
        summary, head = audit.load(folder / f"results/summaries/{name}.json"), notebook.cells[0]
        title, _, head.source = (head.source + "\n\n\n\n").split("\n\n", 2)  # _: the question
        own = {"name": name, "title": title.removeprefix("# "), "notebook": notebook}
        cards.append({**entry, **summary, **own})
    values = {"run": record, "cards": cards, "tissue": tissue}
    for place, card in enumerate(cards):
        body, contents = render(card["notebook"], record["notebooks"], tissue)
        own = {"place": place, "card": card, "contents": contents, "body": Markup(body)}
        made[card["name"]] = page("page.html.j2", **values, **own)
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
    """HTML of the cells, with links to `known` pages; (level, id, HTML) of each heading."""
    exporter = HTMLExporter(
        template_name="series", extra_template_basedirs=[str(TEMPLATES)],
        filters={"without_logs": lambda text: LOG.sub("", text).strip()},
    )  # fmt: skip
    html, _ = exporter.from_notebook_node(notebook, {"tissue": tissue})
    for name in known:
        html = html.replace(f'href="{name}.ipynb', f'href="{name}.html')
    return html, re.findall(r'<h([23]) id="([^"]+)">(.*?)<a class="anchor', html)


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
