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
    """What the templates may use: numbers of the sample, its run.json, a figure with alt text."""
    index = (SAMPLE / "index.html").read_text(encoding="utf-8")
    image = rf'base64,([^"]+)" alt="([^"]*)">(?:(?!<img).)*"{FIGURE}.html'
    figure, alt = re.search(image, index, re.DOTALL).groups()
    record = load(SAMPLE / "run.json")
    return {"sample": metrics_of(SAMPLE), "record": record, "figure": figure, "alt": alt}


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
    (SAMPLE / "figures").mkdir(exist_ok=True)
    (SAMPLE / "figures" / f"{FIGURE}.png").write_bytes(base64.b64decode(found["figure"]))
    text = render((ROOT / "README.md").read_text(encoding="utf-8"), **found)
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    text = page("model_card.md.j2", **found)
    (ROOT / "reports" / "MODEL_CARD.md").write_text(text, encoding="utf-8")
