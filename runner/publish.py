"""The pages of a run as HTML that needs no network: one a notebook, an index, the list of runs."""

import base64
import io
import json
import os
import re
from datetime import datetime
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert import HTMLExporter
from PIL import Image

from helpers.results import read_table, write_atomic
from helpers.splits import PROTOCOLS, label
from runner import plan as files
from runner import provenance

TEMPLATES = Path(__file__).with_name("templates")
MIMES = ("image/png", "image/jpeg")
SHOWN = ("text/html", "text/markdown", *MIMES, "text/plain")
LOG = re.compile(
    r"^(Epoch \d+/\d+|\d+/\d+ - |[WIEF]\d{4} |WARNING|INFO|DEBUG|\d{4}-\d\d-\d\d[ T]\d\d:)|"
    r"━|█|it/s\]|/step"
)
OBJECT = re.compile(r"\w*Path\(|<[\w.]+[ >]")  # what a cell's last line returned by the way
NUMBER = re.compile(r"[-+−–]?[\d,.]*%?")  # also a dash or nothing, for a missing value
INTERVAL = re.compile(r"[-+−–]?[\d.,]+%? \(.{5,24}\)")
KINDS = {"phantom": "phantom", "sample": "real", "database": "real"}
SCORES = {  # on the index: task, metric and level
    "Benign or malignant: AUC by patient": ("malignancy", "auc", "accession"),
    "Benign or malignant: recognition rate by slide": ("malignancy", "recognition_rate", "slide"),
    "Eight tumour types: macro F1 by patient": ("tumor_type", "macro_f1", "accession"),
}


def environment():
    """Jinja with the series' templates, styles and filters."""
    series = TEMPLATES / "series"
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(series),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["day"] = lambda iso: f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M} UTC"
    env.filters["duration"] = lambda s: (
        f"{s // 60:.0f} min {s % 60:02.0f} s" if s >= 60 else f"{s:.0f} s"
    )
    for name in ("page.css", "page.js", "theme.js"):
        env.globals[name.replace(".", "_")] = Markup((series / name).read_text(encoding="utf-8"))
    return env


def code_hash():
    """Hash of the code and templates that make the pages."""
    made_by = [Path(__file__), *sorted(TEMPLATES.rglob("*.*"))]
    return provenance.digest([provenance.file_hash(file) for file in made_by])


def stale(folder, record):
    """Whether a page of a run is missing, changed, or made by other code than today's."""
    pages = record.get("pages", {}).items()
    kept = all(provenance.file_hash(Path(folder, name)) == code for name, code in pages)
    return not (pages and kept and record["code"] == code_hash())


def write_pages(plan, folder, record):
    """Write the pages and the index of a run into `folder`; enter their hashes in `record`."""
    env, made = environment(), {}
    data = record["data"]
    frame = {
        "run": record,
        "kind": KINDS.get(data.get("kind"), "none"),
        "badge": data.get("badge", "No images"),
    }
    cards = [card(folder, name, entry) for name, entry in record["notebooks"].items()]
    for place, this in enumerate(cards):
        before, after = cards[place - 1] if place else None, cards[place + 1 : place + 2]
        body, contents = render(this["notebook"], record["notebooks"])
        made[f"{this['name']}.html"] = env.get_template("page.html.j2").render(
            **frame, card=this, body=Markup(body), contents=contents, total=len(cards),
            before=before, after=after[0] if after else None, place=place + 1,
        )  # fmt: skip
    made["index.html"] = env.get_template("run.html.j2").render(
        **frame, cards=cards, tables=scores(folder / "results")
    )
    hidden = places(plan, folder)
    for name, text in made.items():
        for path in sorted(hidden, key=len, reverse=True):
            text = text.replace(path, hidden[path])
        write_text(folder / name, text)
    record["pages"] = {name: provenance.file_hash(folder / name) for name in made}
    record["code"] = code_hash()


def write_text(path, text):
    """Write a page atomically."""
    write_atomic(path.resolve(), lambda file: file.write_text(text, encoding="utf-8"))


def places(plan, folder):
    """Paths of this machine, as pages may hold them, and what stands in their place."""
    root, runs, shown = plan["root"], plan["runs"], f"reports/runs/{plan['run']}"
    hidden = {str(folder): shown, f"{runs}/": "reports/runs/", f"{root}/": "", str(root): "."}
    hidden |= {f"{Path.home()}/": "~/"}
    if folder.is_relative_to(root):
        hidden[folder.relative_to(root).as_posix()] = shown
    for data in {plan["images"], os.environ.get("BREAKHIS_DIR")} - {None, ""}:
        hidden |= {str(path): path.name for path in (Path(data), Path(root, data).resolve())}
    return hidden


def card(folder, name, entry):
    """What page and index say of a notebook: its entry of run.json, summary, title, figure."""
    notebook = clean(files.read(folder / "executed" / f"{name}.ipynb"))
    text = (folder / "results" / f"summaries/{name}.json").read_text(encoding="utf-8")
    title, question, notebook.cells[0].source = split_head(notebook.cells[0].source)
    return {
        **entry, **json.loads(text), "name": name, "notebook": notebook, "title": title,
        "long_question": question, "figure": thumbnail(notebook),
    }  # fmt: skip


def split_head(text):
    """Title, question and the rest of a notebook's first cell."""
    title, _, rest = text.strip().partition("\n")
    question, _, after = rest.strip().partition("\n\n")
    if question.startswith(("|", "#", "-", "*")):  # a table or list: no question
        question, after = "", rest
    return title.removeprefix("# "), " ".join(question.split()), after


def clean(notebook):
    """Leave out of the outputs what is no result: warnings, logs, widgets, errors."""
    for cell in notebook.cells:
        kept = []
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stdout":
                lines = [line.rpartition("\r")[2] for line in output.text.splitlines()]
                output.text = "\n".join(line for line in lines if not LOG.search(line)).strip()
                kept += [output] if output.text else []
            elif "data" in output:
                output.data = {mime: v for mime, v in output.data.items() if mime in SHOWN}
                by_the_way = list(output.data) == ["text/plain"] and OBJECT.match(
                    output.data["text/plain"]
                )
                kept += [output] if output.data and not by_the_way else []
        if cell.cell_type == "code":
            cell.outputs = kept
    return notebook


def key_figure(notebook):
    """(base64, mime, alt) of the output marked as key figure, else of the first; None without."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [
        (output.data[mime], mime, output.metadata.get(mime, {}))
        for output in outputs for mime in MIMES if mime in output.get("data", {})
    ]  # fmt: skip
    marked = [item for item in found if item[2].get("key")] or found
    return (*marked[0][:2], marked[0][2].get("alt", "")) if marked else None


def thumbnail(notebook, width=720):
    """The key figure for the index: dict src, alt, sheet (photographs, which may be cropped)."""
    if not (found := key_figure(notebook)):
        return None
    data, mime, alt = found
    image, buffer = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), io.BytesIO()
    image.thumbnail((width, 10 * width))
    image.save(buffer, format="JPEG", quality=82, optimize=True)
    src = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"src": src, "alt": alt, "sheet": mime == "image/jpeg"}


def render(notebook, known):
    """HTML of the cells, with numbered figures and tables, and contents: (level, id, text).

    known: names of the notebooks that have a page: links to them go there.
    """
    exporter = HTMLExporter(template_name="series", extra_template_basedirs=[str(TEMPLATES)])
    soup = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
    for link in soup.find_all("a", href=True):
        name, _, part = link["href"].removeprefix("./").partition(".ipynb")
        link["href"] = f"{name}.html{part}" if name in known else link["href"]
    for number, figure in enumerate(soup.find_all("figure"), 1):
        figure["id"] = f"figure-{number}"
        if figure.figcaption:
            figure.figcaption.insert(0, strong(soup, f"Figure {number}. "))
    for image in soup.find_all("img", src=re.compile("^data:")):  # its size: the page may not jump
        data = io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))
        image["width"], image["height"] = Image.open(data).size
    contents = headings(soup)
    tables(soup)
    return str(soup), contents


def strong(soup, text):
    """A bold piece of text."""
    tag = soup.new_tag("strong")
    tag.string = text
    return tag


def headings(soup):
    """Give each heading an id of its own; the list (level, id, text)."""
    used, contents = [], []
    for link in soup.find_all("a", class_="anchor-link"):
        link.decompose()
    for tag in soup.find_all(["h1", "h2", "h3"]):
        text = tag.get_text().strip()
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        used.append(base)
        again = used.count(base)
        tag["id"] = base if again == 1 else f"{base}-{again}"
        tag.name = "h2" if tag.name == "h1" else tag.name
        contents.append((int(tag.name[1]), tag["id"], text))
    return contents


def tables(soup):
    """Let each table scroll by itself, by keyboard too; number captions, align numbers right."""
    number = 0
    for table in soup.find_all("table"):
        wrapped = "table-scroll" in table.parent.get("class", [])
        frame = table.parent if wrapped else table.wrap(soup.new_tag("div", attrs={"class": "table-scroll"}))
        frame.attrs |= {"tabindex": "0", "role": "region"}
        above = table.find_previous(["h2", "h3"])
        frame["aria-label"] = (
            f"Table under {above.get_text().strip()}" if above else "Inputs and outputs"
        )
        if table.caption:
            number += 1
            caption = table.caption.extract()
            caption.name, caption["class"], caption["id"] = "p", "caption", f"table-{number}"
            caption.insert(0, strong(soup, f"Table {number}. "))
            frame.insert_before(caption)  # it stays in view
            frame["aria-label"] = f"Table {number}"
        if table.thead and not table.thead.get_text().strip():
            table.thead.decompose()
        rows = [row.find_all(["td", "th"]) for row in table.find_all("tr")]
        for cell in sum(rows, []):
            del cell["style"]
            if INTERVAL.fullmatch(cell.get_text().strip()):
                cell["class"] = "interval"
        for column in zip(*rows, strict=False):
            if all(
                NUMBER.fullmatch(cell.get_text().strip()) for cell in column if cell.name == "td"
            ):
                for cell in column:
                    cell["class"] = "number"


def scores(results):
    """The tables of models by protocol: list of (title, protocols, rows).

    rows: (model, notebook, cells), a cell a dict with value, interval and leaky, or None.
    """
    if not Path(results, "metrics.csv").exists():
        return []
    found, frame = [], read_table(results, "metrics.csv").query("magnification == 'all'")
    for title, (task, metric, level) in SCORES.items():
        mine = frame.query("task == @task and metric == @metric and level == @level")
        names = [name for name in PROTOCOLS if name in set(mine["protocol"])]
        rows = [
            (model, notebook, [by.get(name) for name in names])
            for (notebook, model), group in mine.groupby(["notebook", "model"], sort=False)
            for by in [group.drop_duplicates("protocol").set_index("protocol").to_dict("index")]
        ]
        found += [(title, [label(name) for name in names], rows)] if rows else []
    return found


def write_runs(runs, root):
    """Write the index of all runs, the newest first, with what has changed since each."""
    rows = []
    for path in Path(runs).glob("[!.]*/run.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        changed = set()
        for name, entry in record["notebooks"].items():
            source = Path(root, "notebooks", f"{name}.ipynb")
            now = provenance.code_key(source, Path(root)) if source.exists() else {"notebook": ""}
            changed |= {
                f"{name}: {part}" if part == "notebook" else part
                for part in now
                if entry["key"][part] != now[part]
            }
        rows.append((record, KINDS.get(record["data"].get("kind"), "none"), sorted(changed)))
    rows.sort(key=lambda row: row[0]["finished"], reverse=True)
    write_text(
        Path(runs, "index.html"), environment().get_template("runs.html.j2").render(rows=rows)
    )
