"""`python -m runner.readme demo sample`: what is committed under reports/, and README.md from it.

What stands in README.md between `<!-- name:start -->` and `<!-- name:end -->` is rendered from
templates/readme/name.md.j2 and the numbers in reports/: nobody types a result.
"""

import base64
import shutil
import sys

from bs4 import BeautifulSoup

from helpers.results import ROOT
from runner import publish
from runner.audit import load

REPORTS = ROOT / "reports"
FIGURE = "02_patient_split"  # whose key figure README.md shows


def commit(name):
    """Put pages, numbers and key figure of a run into reports/<name>, without tissue."""
    run, to = REPORTS / "runs" / name, REPORTS / name
    record = load(run / "run.json")
    if (record["data"]["kind"] == "phantom") != (name == "demo"):
        raise SystemExit(
            "the demo shows the phantom (move data/BreaKHis_v1 away), others real images"
        )
    shutil.rmtree(to, ignore_errors=True)
    for folder in ("results", "figures"):
        (to / folder).mkdir(parents=True)
    publish.write_pages(ROOT, run, record, to, tissue=name == "demo")
    for file in ("run.json", "results/metrics.csv"):
        shutil.copy(run / file, to / file)
    soup = BeautifulSoup((to / "index.html").read_text(encoding="utf-8"), "html.parser")
    image = soup.select_one(f'.card:has(a[href="{FIGURE}.html"]) img')
    data = base64.b64decode(image["src"].partition(",")[2])
    (to / "figures" / f"{FIGURE}.png").write_bytes(data)
    (to / "figures" / f"{FIGURE}.txt").write_text(image["alt"], encoding="utf-8")


def render(text):
    """The text of README.md with what the committed reports say."""
    sample = publish.metrics_of(REPORTS / "sample")
    for path in sorted(publish.TEMPLATES.glob("readme/*.md.j2")):
        start, end = (
            f"<!-- {path.name.partition('.')[0]}:{place} -->" for place in ("start", "end")
        )
        if start not in text or end not in text:
            raise SystemExit(f"README.md lacks {start} or {end}: put them back")
        new = publish.page(f"readme/{path.name}", sample=sample)
        text = f"{text.partition(start)[0]}{start}\n{new}\n{end}{text.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for run in sys.argv[1:]:
        commit(run)
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text(encoding="utf-8")), encoding="utf-8")
