"""The pages of a run as HTML that needs no network: one a notebook, an index, the list of runs."""

import os
import re
from datetime import datetime
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert import HTMLExporter

from helpers import scores, splits
from runner import provenance
from runner.audit import load

TEMPLATES = Path(__file__).with_name("templates")
LOG = re.compile(  # lines of an output that are no result; also what a cell returned by the way
    r"^(Epoch \d+/\d+|\d+/\d+ - |[WIEF]\d{4} |WARNING|INFO|DEBUG|\d{4}-\d\d-\d\d[ T]\d\d:|"
    r"\w*Path\(|<[\w.]+[ >])|━|█|it/s\]|/step"
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
    for name in ("page.css", "page.js", "theme.js"):
        text = (TEMPLATES / "series" / name).read_text(encoding="utf-8")
        env.globals[name.replace(".", "_")] = Markup(text)
    return env.get_template(template).render(find=scores.find, **values)


def metrics_of(folder):
    """The table metrics.csv of a run; None where it has none."""
    path = folder / "results" / "metrics.csv"
    return pd.read_csv(path, dtype={"magnification": str}) if path.exists() else None


def write_pages(root, folder, record, to, tissue=True):
    """Write pages and index of the run in `folder` to the folder `to`.

    record: the content of run.json; tissue: show figures that are marked as pictures of tissue.
    """
    cards, made = [], {}
    for name, entry in record["notebooks"].items():
        notebook = nbformat.read(folder / "executed" / f"{name}.ipynb", 4)
        head, summary = notebook.cells[0], load(folder / "results" / "summaries" / f"{name}.json")
        title, _, head.source = (head.source + "\n\n\n\n").split("\n\n", 2)  # _: the question
        found = {"name": name, "title": title.removeprefix("# "), "notebook": notebook}
        cards.append({**entry, **summary, **found})
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
        (to / f"{name}.html").write_text(text, encoding="utf-8")


def places(root, folder, run):
    """Paths of this machine that pages may hold, and what is shown in their place."""
    shown = f"reports/runs/{run}"
    hidden = {str(folder): shown, os.path.relpath(folder, root): shown, f"{Path.home()}/": "~/"}
    hidden |= {f"{folder.parent}/": "reports/runs/", f"{root}/": "", str(root): "."}
    images = load(folder / "results" / "data.json").get("folder")
    for data in filter(None, (images, os.environ.get("BREAKHIS_DIR"))):
        hidden |= {str(path): path.name for path in (Path(data), Path(root, data).resolve())}
    return hidden


def without_logs(text):
    """Printed text without the lines that are no result."""
    lines = [line.rpartition("\r")[2] for line in text.splitlines()]
    return "\n".join(line for line in lines if not LOG.search(line)).strip()


def render(notebook, known, tissue):
    """HTML of the cells, and contents: (level, id, text) of each heading.

    known: names of the notebooks that have a page: links to them go there.
    """
    exporter = HTMLExporter(
        template_name="series", extra_template_basedirs=[str(TEMPLATES)],
        filters={"without_logs": without_logs}, exclude_anchor_links=True,
    )  # fmt: skip
    html, _ = exporter.from_notebook_node(notebook, {"tissue": tissue})
    soup = BeautifulSoup(html, "html.parser")
    for link in soup.select("a[href]"):
        name, _, part = link["href"].removeprefix("./").partition(".ipynb")
        link["href"] = f"{name}.html{part}" if name in known else link["href"]
    contents, used = [], []
    for tag in soup.find_all(["h2", "h3"]):
        used.append(re.sub(r"[^a-z0-9]+", "-", tag.get_text().lower()).strip("-"))
        again = used.count(used[-1])
        tag["id"] = used[-1] if again == 1 else f"{used[-1]}-{again}"
        contents.append((int(tag.name[1]), tag["id"], tag.get_text().strip()))
    return str(soup), contents


def write_runs(runs, root):
    """Write the index of all runs, the newest first, with what has changed since each."""
    rows = []
    for path in sorted(runs.glob("[!.]*/run.json"), key=os.path.getmtime, reverse=True):
        record, changed = load(path), set()
        for name, entry in record["notebooks"].items():
            source = root / "notebooks" / f"{name}.ipynb"
            now = provenance.code_key(nbformat.read(source, 4), root) if source.exists() else {}
            changed |= {part for part, _ in now.items() - entry["key"].items()}
        rows.append((record, sorted(changed)))
    (runs / "index.html").write_text(page("runs.html.j2", rows=rows), encoding="utf-8")
