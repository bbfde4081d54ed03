"""The pages in a browser without a network, and the committed reports against the tree."""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import tiny
from axe_core_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from scipy import ndimage

from helpers import figures, plots
from runner import plan, provenance, publish, readme

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports"
REAL = ROOT.parent / "shared" / "breakhis"  # a real sample, on some machines
EMBEDDED = re.compile(r"data:image/([\w+]+);base64,([A-Za-z0-9+/=\s]+)")
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
PAGES = ["index", *NAMES]
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1440, "height": 900}
SHOW = """import sys
from IPython.display import HTML, Markdown, display

print("kept")
print("Epoch 1/3\\n3/3 - 1s - loss: 0.5\\nW0000 a warning\\n100%|███| 3/3 [00:01<00:00, 2.1it/s]")
print("half\\rwhole")
print("a warning", file=sys.stderr)
table = "<table><caption>Scores. {}</caption><thead><tr><th>Model</th><th>AUC of all images</th>"
table += "</tr></thead><tbody><tr><td>one</td><td>0.71 (0.60 to 0.81)</td></tr>"
table += "<tr><td>two</td><td>–</td></tr></tbody></table>"
display(HTML(f'<div class="table-scroll">{table.format("Badge" * 30)}</div>'))
display(Markdown("Computed **text** on patients, and [the next](02_second.ipynb#counting)."))
value = 1
"""


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium of the system."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if not found:
        message = "no Chromium here (Debian: apt install chromium): the pages are not checked"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opener(browser):
    """A function that opens a page offline: (page, what went wrong)."""
    contexts = []

    def open_page(path, **options):
        context = browser.new_context(offline=True, **{"viewport": WIDE, **options})
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"asked for {request.url}"))
        page.goto(path.as_uri())
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


def show_code(page):
    """Open all folded code, where the page has any."""
    if page.locator("#code[aria-pressed=false]").count():
        page.get_by_role("button", name="Show code").click()


def check_offline(page, wrong):
    """Nothing went wrong, nothing was asked of a network, every image is there, with alt text."""
    assert wrong == []
    assert page.evaluate("performance.getEntriesByType('resource').map(r => r.name)") == []
    broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length"
    assert page.evaluate(broken) == 0
    alts = page.evaluate("[...document.images].map(i => (i.getAttribute('alt') || '').trim())")
    assert all(len(alt) > 10 for alt in alts), alts


def check_fits(page):
    """The page does not scroll sideways on a phone, with its code shown or not."""
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= NARROW["width"]
    show_code(page)
    assert page.evaluate(width) <= NARROW["width"]


def check_answer(page):
    """The first screen holds title, question and finding, with the data."""
    for part in ("h1", ".question", ".finding", ".badge"):
        box = page.locator(f".head {part}").first.bounding_box()
        assert box["y"] + box["height"] <= page.viewport_size["height"], part


def check_around(page):
    """How to cite, the licence, and a way on; each term is a link once, to the glossary."""
    cite = page.locator("footer.cite").text_content()
    for words in ("MIT licence", "CC BY 4.0", "@software{", "@article{spanhol2016", "1455--1462"):
        assert words in cite
    terms = page.locator("main dfn a.term")
    names = [link.get_attribute("href").partition("#")[2] for link in terms.all()]
    assert "patient" in names
    assert len(names) == len(set(names))
    assert all(link.get_attribute("title") for link in terms.all())
    assert page.locator("dfn :is(code, pre), a dfn, code dfn, pre dfn").count() == 0


def check_axe(page):
    """axe-core finds no serious violation in what is shown."""
    found = Axe().run(page)["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]


def check_contents(page):
    """Each entry of the contents leads to its heading, and ids are unique."""
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)), [i for i in ids if ids.count(i) > 1]
    links = page.locator(".contents a")
    assert links.count() == page.locator("article :is(h2, h3)").count() > 0
    for link in links.all():
        heading = page.locator(f'article [id="{link.get_attribute("href")[1:]}"]')
        assert heading.inner_text().strip() == link.inner_text().strip()


# The machinery of the pages, on two tiny notebooks


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tiny.project(tmp_path_factory.mktemp("pages") / "series")
    tiny.write(root, "01_first", "value = 20 + SEED", tiny.FIGURE, SHOW)
    (root / "notebooks/03_third.ipynb").unlink()
    assert tiny.run(root) == 0
    return root / "reports/runs/demo"


def test_a_page_shows_results_and_leaves_out_what_is_none(pages):
    soup = BeautifulSoup((pages / "01_first.html").read_text(), "html.parser")
    for code in soup.select("details"):
        code.decompose()
    text = soup.article.get_text()
    for shown in ("kept", "whole", "Computed text on patients", "Teal."):
        assert shown in text
    for hidden in ("Epoch 1", "3/3 - 1s", "a warning", "it/s", "half"):
        assert hidden not in text


def test_links_between_notebooks_lead_to_pages(pages):
    soup = BeautifulSoup((pages / "01_first.html").read_text(), "html.parser")
    assert "02_second.html#counting" in [link["href"] for link in soup.select("article a")]


def test_a_page_in_a_browser(pages, opener):
    page, wrong = opener(pages / "01_first.html")
    check_offline(page, wrong)
    check_contents(page)
    number = "e => getComputedStyle(e, '::before').content"
    assert "counter(figure)" in page.locator("article figcaption").evaluate(number)
    caption = page.locator("article p.caption")  # taken out of what scrolls
    assert "counter(table)" in caption.evaluate(number)
    assert "Scores." in page.locator(".table-scroll[aria-label]").get_attribute("aria-label")
    assert page.locator("td.number").all_inner_texts() == ["2", "0.71 (0.60 to 0.81)", "–"]
    rows = page.locator("article tbody tr > :first-child")
    assert rows.evaluate_all("cells => cells.every(c => c.matches('th[scope=row]'))")
    heads = page.locator("article .table-scroll table").last.locator("thead th")
    assert heads.evaluate_all("cells => cells.every(c => c.scope === 'col')")
    blocks = page.locator("details.code")
    assert page.locator("details.code[open]").count() == 0
    page.get_by_role("button", name="Show code").click()
    assert page.locator("details.code[open]").count() == blocks.count() > 3
    assert "Code: Counting" in blocks.locator("summary").all_inner_texts()
    with page.expect_navigation():
        page.locator(".onward a[rel=next]").click()
    assert page.url.endswith("02_second.html")
    expect(page.locator("details.code:not([open])")).to_have_count(0)  # the choice is kept
    with page.expect_navigation():
        page.locator(".onward a[rel=prev]").click()
    assert page.url.endswith("01_first.html")


def test_a_click_enlarges_a_figure(pages, opener):
    page, _ = opener(pages / "01_first.html", viewport=NARROW)
    page.get_by_role("button", name="A teal field").first.click()
    assert page.get_by_role("dialog").get_by_alt_text("A teal field").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()


def test_a_term_is_explained_where_a_page_first_uses_it(pages, opener):
    page, _ = opener(pages / "01_first.html")
    check_around(page)
    link = page.locator("a.term").first
    assert link.inner_text() == "patients"
    assert link.evaluate("e => e.closest('.computed') !== null")
    with page.expect_navigation():
        link.click()
    assert page.url.endswith("index.html#patient")
    assert page.locator("#patient").inner_text() == "patient"


def test_findings_come_first_on_a_page(tmp_path):
    tiny.project(tmp_path)
    tiny.write(tmp_path, "01_first", "value = 1")
    path = tmp_path / "notebooks/01_first.ipynb"
    notebook = nbformat.read(path, 4)
    last = notebook.cells.pop()
    for text in ("It ends.\n\n## Findings\n\nMuch.", "## Limitations\n\nAll."):
        notebook.cells.append(nbformat.v4.new_markdown_cell(text))
    nbformat.write(notebook, path)
    html, heads = publish.render(nbformat.read(path, 4), [], tissue=True)
    assert last.source not in html
    assert [text for _, _, text in heads] == ["Findings", "Counting", "Limitations"]
    assert html.index("Much.") < html.index("Counting") < html.index("It ends.")
    assert html.count("<section") == html.count("</section>")


@pytest.mark.parametrize(("scheme", "size"), [("dark", WIDE), ("light", NARROW)])
@pytest.mark.parametrize("name", ["index", "01_first", "../index"])
def test_pages_are_accessible_and_fit(pages, opener, name, scheme, size):
    page, wrong = opener(pages / f"{name}.html", color_scheme=scheme, viewport=size)
    check_offline(page, wrong)
    if size == NARROW:
        check_fits(page)
    show_code(page)
    check_axe(page)


def test_dark_differs_from_light_the_button_overrides_and_is_remembered(pages, opener):
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opener(pages / "index.html", color_scheme=s)[0] for s in ("light", "dark"))
    assert (was := light.evaluate(colour)) != dark.evaluate(colour)
    button = light.get_by_role("button", name="Theme")
    button.click()  # light
    assert light.evaluate(colour) == was
    button.click()  # dark
    assert light.evaluate(colour) == dark.evaluate(colour)
    light.reload()
    assert light.evaluate("document.documentElement.dataset.theme") == "dark"
    # set by a script of the head: before the body is painted, so that nothing flashes
    text = (pages / "index.html").read_text()
    assert 0 < text.index('setAttribute("data-theme"') < text.index("<body")


def test_paper_gets_what_it_can_use(pages, opener):
    page, _ = opener(pages / "01_first.html", viewport={"width": 665, "height": 1000})
    page.emulate_media(media="print", color_scheme="dark")
    for part in (".bar", ".contents", "details.code >> nth=0"):
        assert not page.locator(part).is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 665


# The pages of the series


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_the_series(smoke_run, opener, name):
    path = smoke_run.folder / f"{name}.html"
    page, wrong = opener(path)
    check_offline(page, wrong)
    check_answer(page)
    check_around(page)
    check_axe(page)
    narrow, _ = opener(path, viewport=NARROW)
    check_answer(narrow)
    check_fits(narrow)
    paper, _ = opener(path, viewport={"width": 665, "height": 1000})
    paper.emulate_media(media="print")
    assert paper.evaluate("document.documentElement.scrollWidth") <= 665
    text = path.read_text()
    assert path.stat().st_size <= 3_000_000
    for place in (ROOT, Path.home(), smoke_run.reports, "/tmp/", "Traceback", "Warning:"):
        assert str(place) not in text, f"{name} names {place}"
    for target in links(path):
        assert target.exists(), f"{name} links to {target.name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_of_the_series_tells_question_result_data_and_provenance(smoke_run, opener, name):
    page, _ = opener(smoke_run.folder / f"{name}.html")
    check_contents(page)
    head = page.locator(".head").inner_text()
    provenance = page.locator("main > .provenance").inner_text()
    record = json.loads((smoke_run.folder / "run.json").read_text())
    summary = json.loads((smoke_run.results / f"summaries/{name}.json").read_text())
    entry = record["notebooks"][name]
    badge, images = record["data"]["badge"], record["data"]["images"]
    for words in (badge, summary["question"], summary["finding"]):
        assert words in head
    for words in (badge, images, "Keras", entry["backend"], entry["device"], "UTC"):
        assert words in provenance
    assert page.locator(".head figure.key img").count() == 1
    assert page.locator("article h2").first.inner_text() == "Findings"
    captions = page.locator("article figure figcaption").all_inner_texts()
    assert captions
    for caption in captions:
        # 02 also draws a phantom of its own for its negative control, and simulates without images
        data = r"Phantom: \d+ synthetic images, not tissue|Simulation, no images"
        assert re.search(data, caption)


def test_the_index_shows_the_series_in_order(smoke_run, opener):
    page, _ = opener(smoke_run.folder / "index.html")
    heads = page.locator(".card h3 a")
    assert [h.get_attribute("href") for h in heads.all()] == [f"{name}.html" for name in NAMES]
    for place, name in enumerate(NAMES):
        summary = json.loads((smoke_run.results / f"summaries/{name}.json").read_text())
        text = page.locator(".card").nth(place).inner_text()
        assert summary["question"] in text
        assert summary["finding"] in text
        assert page.locator(f'.card a.picture[href="{name}.html"] img').count() == 1
    foot = page.locator("main > .provenance").inner_text()
    assert "UTC" in foot
    assert "Phantom: 328 synthetic" in foot
    told = page.locator(".told").inner_text()
    for words in ("Data. 328 synthetic images of 70", "Answer.", "AUC", "How sure. Of tissue, not"):
        assert words in told
    assert page.locator("table.models tbody tr").count() == 5
    assert "%" in page.locator("table.models td").last.inner_text()
    assert page.locator("table.scores tbody tr").count() > 5
    assert not page.locator("table.scores").is_visible()
    terms = page.locator("dl.glossary dt").all_inner_texts()
    assert {"accession", "slide", "patient", "AUC", "fold", "leak", "phantom"} < set(terms)


def links(path):
    """Files that the page at `path` links to, without addresses on the web and in the page."""
    soup = BeautifulSoup(path.read_text(), "html.parser")
    found = [link["href"].partition("#")[0] for link in soup.select("a[href]")]
    return {(path.parent / link).resolve() for link in found if link and "://" not in link}


# The committed reports


@pytest.fixture(scope="module", params=["demo", "sample"])
def committed(request):
    """(folder, run.json) of a committed report."""
    folder = REPORTS / request.param
    assert (folder / "run.json").exists(), f"{folder} is missing: make reports DATA=..."
    return folder, json.loads((folder / "run.json").read_text())


def test_a_committed_report_belongs_to_the_tree(committed):
    folder, record = committed
    assert list(record["notebooks"]) == NAMES
    paths = {name: ROOT / "notebooks" / f"{name}.ipynb" for name in NAMES}
    defaults = {name: plan.defaults_of(path) for name, path in paths.items()}
    profile = plan.profile(ROOT, folder.name, defaults)
    for name, entry in record["notebooks"].items():
        now = provenance.code_key(nbformat.read(paths[name], 4), ROOT)
        changed = {part for part, _ in now.items() - entry["key"].items()}
        assert not changed, f"{name} is stale, as these changed: {changed}; make reports"
        wanted = {**defaults[name], **profile[name]}
        wanted = {part: value for part, value in wanted.items() if part not in plan.HIDDEN}
        assert entry["parameters"] == wanted, f"{name}: make reports"
        assert not entry["stale"]
        found = provenance.result_hashes(folder / "results", name, []).get("metrics.csv")
        assert found == entry["results"].get("metrics.csv"), f"metrics of {name}: make reports"


def test_a_committed_report_is_complete_and_of_the_right_images(committed, opener):
    folder, record = committed
    assert (record["data"]["kind"] == "phantom") == (folder.name == "demo")
    tracked = {folder / f"{name}.html" for name in PAGES}
    tracked |= {folder / "run.json", folder / "results" / "metrics.csv"}
    assert {path for path in folder.rglob("*.*") if path.suffix != ".svg"} == tracked
    for name in PAGES:
        path = folder / f"{name}.html"
        assert record["data"]["badge"] in path.read_text()
        assert not links(path) - {path.resolve() for path in tracked}, name
        assert path.stat().st_size <= 3_000_000
        for size in (WIDE, NARROW):
            page, wrong = opener(path, viewport=size)
            check_offline(page, wrong)
            check_answer(page)
        check_fits(page)
        check_around(page)


def test_the_first_page_of_all_leads_to_the_reports():
    assert links(REPORTS / "index.html") == {
        REPORTS / f"{n}/index.html" for n in ("sample", "demo")
    }
    assert "url=sample/index.html" in (REPORTS / "index.html").read_text()


def embedded(text):
    """(format, image) of each picture in a page of HTML, and of each in a drawing of the page."""
    for kind, content in EMBEDDED.findall(text):
        raw = base64.b64decode(content)
        if kind == "svg+xml":
            yield from embedded(raw.decode())
        else:
            yield kind, Image.open(io.BytesIO(raw))


def fingerprint(grey):
    """128 bits of a picture: where 8 by 8 of its parts are brighter than their neighbours."""
    wide, tall = (np.asarray(grey.resize(s, Image.Resampling.BOX), int) for s in ((9, 8), (8, 9)))
    return np.append(np.diff(wide, axis=1) > 0, np.diff(tall, axis=0) > 0)


@pytest.fixture(scope="module")
def real():
    """(files, fingerprints) of the real sample; the test is skipped where there is none."""
    paths = sorted(REAL.rglob("*.png"))
    if not paths:
        pytest.skip(f"no {REAL} here to compare with")
    return paths, np.stack([fingerprint(Image.open(path).convert("L")) for path in paths])


def nearest(image, known):
    """How many bits part each of ``known`` from the nearest of the pictures on ``image``."""
    grey, least = image.convert("L"), np.full(len(known), 128)
    for rows, columns in ndimage.find_objects(ndimage.label(np.asarray(grey) < 250)[0]):
        if min(rows.stop - rows.start, columns.stop - columns.start) > 30:  # else a letter
            box = columns.start, rows.start, columns.stop, rows.stop  # what white surrounds
            least = np.minimum(least, (fingerprint(grey.crop(box)) != known).sum(axis=1))
    return least


SAME = 20  # bits of 128


@pytest.mark.parametrize("columns", [1, 2, 4, 8])
def test_a_planted_picture_of_the_sample_is_found(real, columns):
    paths, known = real
    plots.style()
    planted = np.random.default_rng(columns).choice(len(paths), 2 * columns, replace=False)
    images = [np.asarray(Image.open(paths[i]).resize((350, 230))) for i in planted]
    fig = figures.sheet(images, ["a title"] * len(images), columns=columns)
    fig.savefig(buffer := io.BytesIO(), format="jpeg", dpi=160, pil_kwargs={"quality": 82})
    plt.close(fig)
    text = f'<img src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    [(_, found)] = embedded(text)
    assert (nearest(found, known)[planted] <= SAME).mean() >= 0.75


def test_no_picture_of_the_sample_is_committed(committed, request):
    folder, _ = committed
    files = [path for path in folder.rglob("*.*") if path.suffix in (".html", ".svg")]
    found = [picture for path in files for picture in embedded(path.read_text())]
    # What is longer is the bar of a colour scale.
    pictures = [(kind, image) for kind, image in found if max(image.size) < 8 * min(image.size)]
    assert not (pictures and folder.name == "sample")  # drawings only
    _, known = request.getfixturevalue("real")  # what stands above holds without it too
    for kind, image in pictures:
        assert nearest(image, known).min() > SAME, (kind, image.size)


def test_readme_and_model_card_show_what_is_committed():
    values = readme.values()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == readme.render(text, **values), "README.md is stale: make reports"
    assert "undefined" not in text
    card = (REPORTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card == readme.page("model_card.md.j2", **values), "stale: make reports"
