"""The pages of a run as HTML that needs no network: one a notebook, an index, the list of runs."""

import os
import re
from datetime import datetime
from pathlib import Path

import jinja2
import nbformat
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert import HTMLExporter

from helpers.results import read_table
from helpers.scores import as_text
from helpers.splits import PROTOCOLS, label
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
}


def page(template, **values):
    """The HTML of a template of the series."""
    series = TEMPLATES / "series"
    env = jinja2.Environment(loader=jinja2.FileSystemLoader(series), autoescape=True)
    env.trim_blocks, env.filters = True, env.filters | FILTERS
    for name in ("page.css", "page.js", "theme.js"):
        env.globals[name.replace(".", "_")] = Markup((series / name).read_text(encoding="utf-8"))
    return env.get_template(template).render(**values)


def code_hash():
    """Hash of the code and templates that make the pages."""
    files = [Path(__file__), *sorted(TEMPLATES.rglob("*.*"))]
    return provenance.digest([provenance.file_hash(file) for file in files])


def write_pages(asked, folder, record):
    """Write the pages and the index of a run into `folder`. asked: the plan; record: run.json."""
    cards = [card(folder, name, entry) for name, entry in record["notebooks"].items()]
    splits, rows = scores(folder / "results")
    made = {"index.html": page("run.html.j2", run=record, cards=cards, splits=splits, rows=rows)}
    for place, this in enumerate(cards):
        body, contents = render(this["notebook"], record["notebooks"])
        made[f"{this['name']}.html"] = page(
            "page.html.j2", run=record, cards=cards, place=place, card=this, body=Markup(body),
            contents=contents,
        )  # fmt: skip
    hidden = places(asked, folder)
    for name, text in made.items():
        for path in sorted(hidden, key=len, reverse=True):
            text = text.replace(path, hidden[path])
        (folder / name).write_text(text, encoding="utf-8")


def places(asked, folder):
    """Paths of this machine that pages may hold, and what is shown in their place."""
    root, shown = asked["root"], f"reports/runs/{asked['run']}"
    hidden = {str(folder): shown, os.path.relpath(folder, root): shown, f"{Path.home()}/": "~/"}
    hidden |= {f"{asked['runs']}/": "reports/runs/", f"{root}/": "", str(root): "."}
    for data in filter(None, (asked["images"], os.environ.get("BREAKHIS_DIR"))):
        hidden |= {str(path): path.name for path in (Path(data), Path(root, data).resolve())}
    return hidden


def card(folder, name, entry):
    """What page and index say of a notebook: its entry of run.json, summary, title, key figure."""
    notebook = nbformat.read(folder / "executed" / f"{name}.ipynb", 4)
    head = notebook.cells[0]
    title, _, head.source = (head.source + "\n\n\n\n").split("\n\n", 2)  # _: the question
    return {
        **entry, **load(folder / "results" / "summaries" / f"{name}.json"), "name": name,
        "title": title.removeprefix("# "), "notebook": notebook, "figure": key_figure(notebook),
    }  # fmt: skip


def key_figure(notebook):
    """The output marked as key figure, else the first: dict data (base64), mime, alt; or None."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [
        {"data": output.data[mime], "mime": mime, "alt": "", **output.metadata.get(mime, {})}
        for output in outputs for mime in output.get("data", {}) if mime.startswith("image/")
    ]  # fmt: skip
    return next((figure for figure in found if figure.get("key")), found[0] if found else None)


def without_logs(text):
    """Printed text without the lines that are no result."""
    lines = [line.rpartition("\r")[2] for line in text.splitlines()]
    return "\n".join(line for line in lines if not LOG.search(line)).strip()


def render(notebook, known):
    """HTML of the cells, with numbered figures and tables, and contents: (level, id, text).

    known: names of the notebooks that have a page: links to them go there.
    """
    exporter = HTMLExporter(
        template_name="series", extra_template_basedirs=[str(TEMPLATES)],
        filters={"without_logs": without_logs},
    )  # fmt: skip
    soup = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
    for link in soup.select("a[href]"):
        name, _, part = link["href"].removeprefix("./").partition(".ipynb")
        link["href"] = f"{name}.html{part}" if name in known else link["href"]
    for table in soup.find_all("table"):
        within = table.find_parent(class_="table-scroll") or table.wrap(soup.new_tag("div"))
        within.attrs = {"class": "table-scroll", "tabindex": "0", "role": "region"}
        within["aria-label"] = "Table"
        if table.caption:  # it stays in view when the table scrolls
            within.insert_before(table.caption.extract())
    for kind, word in (("figcaption", "Figure"), ("caption", "Table")):
        for number, caption in enumerate(soup.find_all(kind), 1):
            mark = f"<strong>{word} {number}. </strong>"
            caption.insert(0, BeautifulSoup(mark, "html.parser"))
            caption["id"] = f"{word.lower()}-{number}"
    for caption in soup.find_all("caption"):
        caption.name, caption["class"] = "p", "caption"
        caption.find_next_sibling()["aria-label"] = caption.strong.get_text()
    contents, used = [], []
    for tag in soup.find_all(["h2", "h3"]):
        for anchor in tag.select("a.anchor-link"):
            anchor.decompose()
        used.append(re.sub(r"[^a-z0-9]+", "-", tag.get_text().lower()).strip("-"))
        again = used.count(used[-1])
        tag["id"] = used[-1] if again == 1 else f"{used[-1]}-{again}"
        contents.append((int(tag.name[1]), tag["id"], tag.get_text().strip()))
    return str(soup), contents


def scores(results):
    """AUC by patient of every model and split, from metrics.csv: (splits, rows (head, scores))."""
    if not (results / "metrics.csv").exists():
        return (), ()
    frame = read_table(results, "metrics.csv")
    chosen = {"task": "malignancy", "metric": "auc", "level": "accession", "magnification": "all"}
    frame = frame[(frame[[*chosen]] == [*chosen.values()]).all(axis=1)]
    frame = frame.assign(text=[as_text(row) for _, row in frame.iterrows()])
    wide = frame.pivot(index=["notebook", "model"], columns="protocol", values="text").fillna("–")
    names = [name for name in PROTOCOLS if name in wide]
    return [label(name) for name in names], list(wide[names].iterrows())


def write_runs(runs, root):
    """Write the index of all runs, the newest first, with what has changed since each."""
    rows = []
    for record in map(load, runs.glob("[!.]*/run.json")):
        changed = set()
        for name, entry in record["notebooks"].items():
            path = root / "notebooks" / f"{name}.ipynb"
            now = {"notebook": ""}
            if path.exists():
                now = provenance.code_key(nbformat.read(path, 4), root)
            changed |= {part for part in now if now[part] != entry["key"][part]}
        rows.append((record, sorted(changed)))
    rows.sort(key=lambda row: row[0]["finished"], reverse=True)
    (runs / "index.html").write_text(page("runs.html.j2", rows=rows), encoding="utf-8")
