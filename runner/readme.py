"""`python -m runner.readme`: README.md and the model card, from the committed reports.

What stands in README.md between `<!-- name:start -->` and `<!-- name:end -->` is rendered from
templates/readme/name.md.j2, so that nobody types a result.
"""

import base64
import re

from helpers.results import ROOT
from runner.audit import load
from runner.publish import TEMPLATES, metrics_of, page

SAMPLE = ROOT / "reports" / "sample"
FIGURE = "02_patient_split"  # the notebook whose figure README.md shows


def values():
    """What the templates may use: numbers and findings of the sample, its run.json, its figure."""
    found = {"sample": metrics_of(SAMPLE), "record": load(SAMPLE / "run.json")}
    texts = {path.stem: path.read_text(encoding="utf-8") for path in SAMPLE.glob("0*.html")}
    said = {name: re.search(r'"finding">(.*?)</p>', text)[1] for name, text in texts.items()}
    image = re.search(r'base64,([^"]+)" alt="([^"]*)"', texts[FIGURE])  # the first: its key figure
    return {**found, "findings": said, "figure": image[1], "alt": image[2]}


def render(text, **values):
    """The text of README.md as it should be."""
    for path in sorted(TEMPLATES.glob("readme/*.md.j2")):
        name, new = path.name.partition(".")[0], page(f"readme/{path.name}", **values)
        marks = f"(<!-- {name}:start -->).*?(<!-- {name}:end -->)"
        text, found = re.subn(marks, lambda m, new=new: f"{m[1]}\n{new}\n{m[2]}", text, flags=re.S)
        if not found:
            raise SystemExit(f"README.md lacks {marks}: put them back")
    return text


if __name__ == "__main__":
    found = values()
    (SAMPLE / f"{FIGURE}.svg").write_bytes(base64.b64decode(found["figure"]))
    file = ROOT / "README.md"
    file.write_text(render(file.read_text(encoding="utf-8"), **found), encoding="utf-8")
    card = ROOT / "reports" / "MODEL_CARD.md"
    card.write_text(page("model_card.md.j2", **found), encoding="utf-8")
