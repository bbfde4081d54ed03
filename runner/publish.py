"""The pages of a run as HTML that needs no network: one a notebook, an index, the list of runs."""

import os
import re
from datetime import datetime
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert import HTMLExporter

from helpers.results import read_table, write_atomic
from helpers.scores import as_text
from helpers.splits import PROTOCOLS, label
from runner import plan, provenance
from runner.audit import load

TEMPLATES = Path(__file__).with_name("templates")
LOG = re.compile(  # lines of an output that are no result; also what a cell returned by the way
    r"^(Epoch \d+/\d+|\d+/\d+ - |[WIEF]\d{4} |WARNING|INFO|DEBUG|\d{4}-\d\d-\d\d[ T]\d\d:|"
    r"\w*Path\(|<[\w.]+[ >])|━|█|it/s\]|/step"
)
NUMBER = re.compile(r"[-+−–]?[\d,.]*%?( \(.{5,24}\))?")  # also nothing, a dash, an interval
KINDS = {"phantom": "phantom", "sample": "real", "database": "real"}
SCORES = {  # on the index: task, metric and level
    "Benign or malignant: AUC by patient": ("malignancy", "auc", "accession"),
    "Benign or malignant: recognition rate by slide": ("malignancy", "recognition_rate", "slide"),
    "Eight tumour types: macro F1 by patient": ("tumor_type", "macro_f1", "accession"),
}
FILTERS = {
    "day": lambda iso: f"{datetime.fromisoformat(iso):%d %B %Y, %H:%M} UTC".lstrip("0"),
    "duration": lambda s: f"{s // 60:.0f} min {s % 60:02.0f} s" if s >= 60 else f"{s:.0f} s",
    "kind": lambda run: KINDS.get(run["data"].get("kind"), "none"),
}


def page(template, **values):
    """The HTML of a template of the series."""
    series = TEMPLATES / "series"
    env = jinja2.Environment(loader=jinja2.FileSystemLoader(series), autoescape=True)
    env.trim_blocks, env.filters = True, env.filters | FILTERS
    for name in ("page.css", "page.js", "theme.js"):
        env.globals[name.replace(".", "_")] = Markup((series / name).read_text(encoding="utf-8"))
    return env.get_template(template).render(**values)


def write_text(path, text):
    """Write a page atomically."""
    write_atomic(path.resolve(), lambda file: file.write_text(text, encoding="utf-8"))


def stale(folder, record):
    """Whether a page of a run is missing, changed, or made by other code than today's."""
    hashes = {name: provenance.file_hash(folder / name) for name in record.get("pages", {})}
    return not hashes or record["pages"] != hashes or record["code"] != code_hash()


def code_hash():
    """Hash of the code and templates that make the pages."""
    files = [Path(__file__), *sorted(TEMPLATES.rglob("*.*"))]
    return provenance.digest([provenance.file_hash(file) for file in files])


def write_pages(asked, folder, record):
    """Write the pages and the index of a run into `folder`; enter their hashes in `record`.

    asked: the plan; record: the content of run.json.
    """
    cards = [card(folder, name, entry) for name, entry in record["notebooks"].items()]
    made = {"index.html": page("run.html.j2", run=record, cards=cards, tables=scores(folder))}
    for place, this in enumerate(cards):
        near = {"before": cards[place - 1] if place else None, "after": [*cards, None][place + 1]}
        body, contents = render(this["notebook"], record["notebooks"])
        made[f"{this['name']}.html"] = page(
            "page.html.j2", run=record, card=this, body=Markup(body), contents=contents,
            place=place + 1, total=len(cards), **near,
        )  # fmt: skip
    hidden = places(asked, folder)
    for name, text in made.items():
        for path in sorted(hidden, key=len, reverse=True):
            text = text.replace(path, hidden[path])
        write_text(folder / name, text)
    record["pages"] = {name: provenance.file_hash(folder / name) for name in made}
    record["code"] = code_hash()


def places(asked, folder):
    """Paths of this machine that pages may hold, and what is shown in their place."""
    root, shown = asked["root"], f"reports/runs/{asked['run']}"
    hidden = {str(folder): shown, os.path.relpath(folder, root): shown, f"{Path.home()}/": "~/"}
    hidden |= {f"{asked['runs']}/": "reports/runs/", f"{root}/": "", str(root): "."}
    for data in {str(asked["images"] or ""), os.environ.get("BREAKHIS_DIR", "")} - {""}:
        hidden |= {str(path): path.name for path in (Path(data), Path(root, data).resolve())}
    return hidden


def card(folder, name, entry):
    """What page and index say of a notebook: its entry of run.json, summary, title, key figure."""
    notebook = plan.read(folder / "executed" / f"{name}.ipynb")
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


def render(notebook, known):
    """HTML of the cells, with numbered figures and tables, and contents: (level, id, text).

    known: names of the notebooks that have a page: links to them go there.
    """
    filters = {"results": lambda text: "\n".join(
        line for line in (line.rpartition("\r")[2] for line in text.splitlines())
        if not LOG.search(line)).strip()}  # fmt: skip
    exporter = HTMLExporter(
        template_name="series", extra_template_basedirs=[str(TEMPLATES)], filters=filters
    )
    soup = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
    for link in soup.find_all("a", href=True):
        name, _, part = link["href"].removeprefix("./").partition(".ipynb")
        link["href"] = f"{name}.html{part}" if name in known else link["href"]
    for number, figure in enumerate(soup.find_all("figure"), 1):
        figure["id"] = f"figure-{number}"
        figure.figcaption.insert(0, bold(soup, f"Figure {number}. "))
    for table in soup.find_all("table"):
        wrapped = "table-scroll" in table.parent.get("class", [])
        frame = table.parent if wrapped else table.wrap(soup.new_tag("div"))
        frame.attrs = {"class": "table-scroll", "tabindex": "0", "role": "region"}
        frame["aria-label"] = "Table"
        align(table)
    for number, caption in enumerate(soup.find_all("caption"), 1):  # out of what scrolls
        caption.name, caption.attrs = "p", {"class": "caption", "id": f"table-{number}"}
        caption.insert(0, bold(soup, f"Table {number}. "))
        frame = caption.find_parent(class_="table-scroll")
        frame["aria-label"] = f"Table {number}"
        frame.insert_before(caption.extract())
    return str(soup), headings(soup)


def bold(soup, text):
    """A bold piece of text."""
    tag = soup.new_tag("strong")
    tag.string = text
    return tag


def align(table):
    """Align columns of numbers to the right, with their heads; drop a head without words."""
    if table.thead and not table.thead.get_text().strip():
        table.thead.decompose()
    rows = [row.find_all(["td", "th"]) for row in table.find_all("tr", style=None) or ()]
    for column in zip(*rows, strict=False):
        body = [cell.get_text().strip() for cell in column if cell.name == "td"]
        for cell in column if body and all(map(NUMBER.fullmatch, body)) else ():
            cell["class"] = "number"


def headings(soup):
    """Give each heading an id of its own; the list (level, id, text)."""
    for link in soup.find_all("a", class_="anchor-link"):
        link.decompose()
    contents, used = [], []
    for tag in soup.find_all(["h2", "h3"]):
        text = tag.get_text().strip()
        used.append(re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"))
        again = used.count(used[-1])
        tag["id"] = used[-1] if again == 1 else f"{used[-1]}-{again}"
        contents.append((int(tag.name[1]), tag["id"], text))
    return contents


def scores(folder):
    """The tables of models by protocol: (title, protocols, rows (notebook, model, scores))."""
    if not (folder / "results" / "metrics.csv").exists():
        return []
    frame = read_table(folder / "results", "metrics.csv").query("magnification == 'all'")
    frame["text"] = [as_text(row) for _, row in frame.iterrows()]
    found = []
    for title, which in SCORES.items():
        mine = frame[(frame[["task", "metric", "level"]] == which).all(axis=1)]
        names = [name for name in PROTOCOLS if name in set(mine["protocol"])]
        wide = mine.pivot_table("text", ["notebook", "model"], "protocol", "first", sort=False)
        rows = [(*head, row.fillna("–")[names]) for head, row in wide.iterrows()]
        found += [(title, [label(name) for name in names], rows)] if rows else []
    return found


def write_runs(runs, root):
    """Write the index of all runs, the newest first, with what has changed since each."""
    rows = []
    for record in map(load, runs.glob("[!.]*/run.json")):
        changed = set()
        for name, entry in record["notebooks"].items():
            path = root / "notebooks" / f"{name}.ipynb"
            now = provenance.code_key(path, root) if path.exists() else {"notebook": ""}
            parts = {part for part in now if now[part] != entry["key"][part]}
            changed |= {name if part == "notebook" else part for part in parts}
        rows.append((record, sorted(changed)))
    rows.sort(key=lambda row: row[0]["finished"], reverse=True)
    write_text(runs / "index.html", page("runs.html.j2", rows=rows))
