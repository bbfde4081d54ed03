"""One executed notebook as the parts of a page: cleaned, rendered, with figures and contents."""

import base64
import io
import re
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from PIL import Image

from helpers.report import markup
from helpers.runner import notebooks

TEMPLATES = Path(__file__).with_name("templates")
MAX_IMAGES = 2_600_000  # characters of base64 a page: leaves room for text under 3 MB
LOG = re.compile(
    r"^(Epoch \d+/\d+|\d+/\d+ - |[WIEF]\d{4} |WARNING|INFO|DEBUG|\d{4}-\d\d-\d\d[ T]\d\d:)|"
    r"━|█|it/s\]|/step"
)
OBJECT = re.compile(r"\w*Path\(|<[\w.]+[ >]")  # what a cell's last line returned by the way
SHOWN = ("text/html", "text/markdown", "image/png", "image/jpeg", "text/plain")


def load(path):
    """The executed notebook at `path`."""
    return nbformat.read(path, as_version=4)


def clean(notebook, hidden):
    """Leave out of the outputs what is no result: warnings, logs, widgets, paths of the machine.

    hidden: dict text -> replacement, for paths.
    """
    for cell in notebook.cells:
        cell.source = hide(cell.source, hidden)
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := clean_output(output))]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for mime in ("text/html", "text/markdown", "text/plain"):
                if mime in output.get("data", {}):
                    output.data[mime] = hide(output.data[mime], hidden)
            if "text" in output:
                output.text = hide(output.text, hidden)
    return notebook


def clean_output(output):
    """The output as a reader should see it, or None."""
    if output.output_type == "stream":
        lines = output.text.splitlines() if output.name == "stdout" else []
        lines = [line.rpartition("\r")[2] for line in lines]
        output.text = "\n".join(line for line in lines if not LOG.search(line)).strip()
        return output if output.text else None
    if output.output_type == "error":
        return None
    output.data = {mime: value for mime, value in output.data.items() if mime in SHOWN}
    if set(output.data) == {"text/plain"} and OBJECT.match(output.data["text/plain"]):
        return None
    return output if output.data else None


def hide(text, hidden):
    """`text` with each path of `hidden` replaced, the longest first."""
    for path in sorted(hidden, key=len, reverse=True):
        text = text.replace(path, hidden[path])
    return text


def images(notebook):
    """Every image output as (output, mime), in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for mime in ("image/png", "image/jpeg"):
                if mime in output.get("data", {}):
                    yield output, mime


def key_figure(notebook):
    """(base64, mime, alt) of the output marked as key figure, else of the first; or None."""
    found = [(o.data[m], m, o.metadata.get(m, {})) for o, m in images(notebook)]
    marked = [item for item in found if item[2].get("key")] or found
    if not marked:
        return None
    data, mime, details = marked[0]
    return data, mime, details.get("alt", "")


def reencode(data, width, quality=82):
    """A base64 image as base64 JPEG of at most `width` px."""
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    if image.width > width:
        height = round(image.height * width / image.width)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def lighten(notebook):
    """Re-encode images, the heaviest first, until the page stays under its size."""
    for width in (1600, 1200, 900, 600):
        heavy = sorted(images(notebook), key=lambda item: -len(item[0].data[item[1]]))
        for output, mime in heavy:
            if sum(len(o.data[m]) for o, m in images(notebook)) <= MAX_IMAGES:
                return notebook
            smaller = reencode(output.data[mime], width)
            if len(smaller) < len(output.data[mime]):
                details = output.metadata.pop(mime, {})
                del output.data[mime]
                output.data["image/jpeg"], output.metadata["image/jpeg"] = smaller, details
    return notebook


def split_head(notebook):
    """Take title and question out of the first cell: (title, question); the rest stays."""
    cell = notebook.cells[0]
    blocks = cell.source.strip().split("\n\n")
    title = notebooks.title(notebook)
    if blocks[0].startswith("# "):
        rest = blocks[0].partition("\n")[2].strip()
        blocks = [rest, *blocks[1:]] if rest else blocks[1:]
    question = ""
    if blocks and not blocks[0].startswith(("|", "#", "-", "*")):
        question, blocks = " ".join(blocks[0].split()), blocks[1:]
    cell.source = "\n\n".join(blocks)
    return title, question


def render(notebook, known):
    """(HTML of the cells, contents). contents: list of (level, id, text) of h2 and h3.

    known: names of the notebooks that have a page: links to them go there.
    """
    exporter = HTMLExporter(template_name="series", extra_template_basedirs=[str(TEMPLATES)])
    body, _ = exporter.from_notebook_node(notebook)
    soup = BeautifulSoup(body, "html.parser")
    contents = markup.headings(soup)
    markup.figures(soup)
    markup.tables(soup)
    for link in soup.find_all("a", href=True):
        name, _, part = link["href"].removeprefix("./").partition(".ipynb")
        if name in known:
            link["href"] = f"{name}.html{part}"
    return str(soup), contents
