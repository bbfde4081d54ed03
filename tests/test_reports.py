"""The pages in a browser without a network, and the committed report against the tree."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from helpers.report import readme, site
from helpers.runner import notebooks, provenance

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "reports" / "demo"
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
PAGES = ["index", *NAMES]
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}


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


@pytest.fixture
def opened(opener, smoke_run):
    """A function that opens a page of the smoke run, as `opener` does."""
    return lambda name, **options: opener(smoke_run.folder / f"{name}.html", **options)


def show_code(page):
    """Open all folded code, where the page has any."""
    if page.locator("#code").count():
        page.get_by_role("button", name="Show code").click()


def check_offline(page, wrong):
    """Nothing went wrong, nothing was asked of a network, every image is there, with alt text."""
    assert wrong == []
    assert page.evaluate("performance.getEntriesByType('resource').map(r => r.name)") == []
    broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("document.images.length") >= 1
    alts = page.evaluate("[...document.images].map(i => (i.getAttribute('alt') || '').trim())")
    assert all(len(alt) > 10 for alt in alts), alts


def check_fits(page):
    """The page does not scroll sideways on a phone, with its code shown or not."""
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= NARROW["width"]
    show_code(page)
    assert page.evaluate(width) <= NARROW["width"]


def check_axe(page):
    """axe-core finds no serious violation, code included."""
    show_code(page)
    found = Axe().run(page)["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_without_network_and_without_errors(opened, name):
    check_offline(*opened(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_numbered_caption_with_the_badge(opened, name):
    page, _ = opened(name)
    captions = page.locator("article figure figcaption").all_inner_texts()
    assert captions
    assert page.locator("article figure").count() == len(captions)
    for number, caption in enumerate(captions, 1):
        assert caption.startswith(f"Figure {number}. ")
        # 02 also draws a phantom of its own, for its negative control
        # and simulates the power of a comparison, without images
        data = r"Phantom: \d+ synthetic images, not tissue|Simulation, no images"
        assert re.search(data, caption)


@pytest.mark.parametrize("name", NAMES)
def test_code_is_folded_and_one_switch_shows_all_of_it(opened, name):
    page, _ = opened(name)
    blocks = page.locator("details.code")
    assert blocks.count() > 3
    assert page.locator("details.code[open]").count() == 0
    switch = page.get_by_role("button", name="Show code")
    switch.click()
    assert page.locator("details.code[open]").count() == blocks.count()
    page.get_by_role("button", name="Hide code").click()
    assert page.locator("details.code[open]").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_contents_links_lead_to_their_headings(opened, name):
    page, _ = opened(name, reduced_motion="reduce")
    links = page.locator(".contents a")
    assert links.count() >= 4
    for place in range(links.count()):
        link = links.nth(place)
        target = link.get_attribute("href")
        link.click()
        heading = page.locator(f"article [id='{target[1:]}']")
        assert heading.count() == 1
        assert heading.inner_text().strip() == link.inner_text().strip()
        assert 0 <= heading.bounding_box()["y"] < WIDE["height"]
    assert page.locator(".contents").is_visible()  # sticky: still there at the page's end


@pytest.mark.parametrize("name", PAGES)
def test_no_horizontal_scroll_on_a_phone(opened, name):
    check_fits(opened(name, viewport=NARROW)[0])


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", WIDE), ("light", NARROW)])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_violation(opened, name, scheme, size):
    check_axe(opened(name, color_scheme=scheme, viewport=size)[0])


def test_dark_differs_from_light_and_the_button_overrides(opened):
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opened("index", color_scheme=s)[0] for s in ("light", "dark"))
    assert light.evaluate(colour) != dark.evaluate(colour)
    was = light.evaluate(colour)
    button = light.get_by_role("button", name="Theme")
    button.click()  # light
    assert light.evaluate(colour) == was
    button.click()  # dark
    assert light.evaluate(colour) == dark.evaluate(colour)


def test_a_stored_theme_is_set_before_the_page_is_painted(opened):
    page, _ = opened("index")
    page.evaluate("localStorage.setItem('breakhis-theme', 'dark')")
    # what the root says when the body comes into being, long before the script at its end
    page.add_init_script("""new MutationObserver((_, seen) => { if (document.body) {
        window.themeAtBody = document.documentElement.dataset.theme; seen.disconnect();
    } }).observe(document, { childList: true, subtree: true });""")
    page.reload()
    assert page.evaluate("window.themeAtBody") == "dark"
    assert page.locator("#theme span").inner_text() == "dark"


PAPER = {"width": 665, "height": 1000}  # A4 less its margins, in px


@pytest.mark.parametrize("name", PAGES)
def test_no_table_is_cut_on_paper(opened, name):
    page, _ = opened(name, viewport=PAPER)
    page.emulate_media(media="print")
    cut = """[...document.querySelectorAll('main table')].filter(
        t => t.getBoundingClientRect().right > document.documentElement.clientWidth + 1
    ).map(t => t.innerText.slice(0, 80))"""
    assert page.evaluate(cut) == []


def test_heads_of_tables_may_wrap_and_numbers_may_not(opened):
    page, _ = opened("index")
    style = "e => getComputedStyle(e).whiteSpace"
    assert page.locator("thead th.number").first.evaluate(style) == "normal"
    assert page.locator("td.number").first.evaluate(style) == "nowrap"


@pytest.mark.parametrize("name", PAGES)
def test_print_leaves_out_what_paper_cannot_use(opened, name):
    page, _ = opened(name, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator(".bar").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    if name != "index":
        assert not page.locator(".contents").is_visible()
        assert not page.locator("details.code").first.is_visible()


def test_previous_and_next_lead_through_the_series(opened):
    page, _ = opened(NAMES[0])
    seen = [NAMES[0]]
    while page.locator(".onward a[rel=next]").count():
        with page.expect_navigation():  # until the page is loaded
            page.locator(".onward a[rel=next]").click()
        seen.append(Path(page.url).stem)
    assert seen == NAMES
    with page.expect_navigation():
        page.locator(".onward a[rel=prev]").click()
    assert Path(page.url).stem == NAMES[-2]


def test_index_shows_the_series_in_order(opened, smoke_run):
    page, _ = opened("index")
    heads = page.locator(".card h3 a")
    assert [h.get_attribute("href") for h in heads.all()] == [f"{name}.html" for name in NAMES]
    for place, name in enumerate(NAMES):
        card = page.locator(".card").nth(place)
        summary = json.loads((smoke_run.results / f"summaries/{name}.json").read_text())
        text = card.inner_text()
        assert summary["question"] in text
        assert summary["finding"] in text
        assert "Phantom: 328 synthetic images" in text
        assert "UTC" in text
        if summary["headline"]:
            assert summary["headline"]["label"] in text
            assert f"{summary['headline']['value']:.3f}" in text
    assert page.locator("table.scores").count() >= 2
    assert page.locator("table.scores th.leaky").count() >= 1
    assert page.locator("table.runs").inner_text().count("smoke") >= 1


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small_and_holds_no_network_address_or_machine_path(smoke_run, name):
    path = smoke_run.folder / f"{name}.html"
    text = path.read_text()
    assert path.stat().st_size <= 3_000_000
    assert not re.search(r"<(script|img|iframe|source)[^>]+src=[\"']?(https?:)?//", text)
    assert not re.search(r"<link[^>]+href=[\"']?https?:|@import|url\(", text)
    for place in (ROOT, Path.home(), smoke_run.reports, "/tmp/"):
        assert str(place) not in text, f"{name} names {place}"
    assert "Traceback" not in text
    assert "Warning:" not in text


@pytest.mark.parametrize("name", NAMES)
def test_header_tells_question_result_data_and_provenance(smoke_run, name):
    text = (smoke_run.folder / f"{name}.html").read_text()
    head = text[text.index('<header class="head">') : text.index("<article>")]
    record = json.loads((smoke_run.folder / "run.json").read_text())
    assert record["data"]["badge"] in head
    assert "Keras" in head
    assert record["data"]["fingerprint"][:10] in head
    assert 'class="question"' in head
    summary = json.loads((smoke_run.results / f"summaries/{name}.json").read_text())
    assert (summary["headline"] is None) == ('class="result"' not in head)
    if summary["headline"]:
        assert "95% interval" in head


class Links(HTMLParser):
    """The addresses that a page links to."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if tag == "a" and key == "href"]


def links(path):
    """Files that the page at `path` links to, without addresses on the web and in the page."""
    parser = Links()
    parser.feed(path.read_text())
    local = [link.partition("#")[0] for link in parser.found if "://" not in link]
    return {(path.parent / link).resolve() for link in local if link}


def test_links_of_the_smoke_report_lead_somewhere(smoke_run):
    for name in PAGES:
        for target in links(smoke_run.folder / f"{name}.html"):
            assert target.exists(), f"{name} links to {target.name}"


# The committed report


@pytest.fixture(scope="module")
def demo():
    """run.json of the committed report."""
    assert (DEMO / "run.json").exists(), "reports/demo is missing: make reports"
    return json.loads((DEMO / "run.json").read_text())


def test_committed_report_belongs_to_the_tree(demo):
    assert list(demo["notebooks"]) == NAMES
    defaults = {}
    for name in NAMES:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        key, now = demo["notebooks"][name]["key"], provenance.code_key(path, ROOT)
        then = {part: key[part] for part in key if part in now or "/" in part}
        changed = provenance.changes(then, now)
        assert not changed, f"{name} is stale, as these changed: {changed}; make reports"
        defaults[name] = notebooks.parameters(notebooks.read(path), name)
    profile = notebooks.profile(ROOT, "demo", defaults)
    for name in NAMES:
        wanted = {**defaults[name], **profile[name]}
        del wanted["RESULTS"]
        assert demo["notebooks"][name]["parameters"] == wanted, f"{name}: make reports"


def test_committed_pages_are_those_of_the_run(demo):
    assert sorted(demo["pages"]) == sorted(f"{name}.html" for name in PAGES)
    assert site.stale_pages(DEMO, demo) == [], "pages are stale: make reports"
    for name in NAMES:
        rows = provenance.metric_rows(DEMO / "results", name)
        digest = demo["notebooks"][name]["results"].get("metrics.csv")
        assert digest == (provenance.digest(rows) if rows else None), f"metrics of {name}"


def test_committed_report_is_of_the_phantom_and_complete(demo):
    assert demo["data"]["kind"] == "phantom"
    assert not any(entry["stale"] for entry in demo["notebooks"].values())
    tracked = {DEMO / f"{name}.html" for name in PAGES}
    tracked |= {DEMO / "run.json", DEMO / "results" / "metrics.csv"}
    for name in PAGES:
        lost = links(DEMO / f"{name}.html") - {path.resolve() for path in tracked}
        assert not lost, f"{name} links to files that are not committed: {lost}"
        assert (DEMO / f"{name}.html").stat().st_size <= 3_000_000


@pytest.mark.parametrize("name", PAGES)
def test_committed_pages_in_a_browser(opener, name):
    path = DEMO / f"{name}.html"
    if not path.exists():
        pytest.skip("not committed yet: see the test of the committed report")
    check_offline(*opener(path))
    check_axe(opener(path)[0])
    narrow, _ = opener(path, viewport=NARROW)
    check_fits(narrow)


def test_sample_metrics_hold_numbers_and_no_path():
    text = (ROOT / "reports" / "sample-metrics.csv").read_text()
    assert text.startswith("notebook,model,task,protocol,")
    assert "/" not in text


def test_readme_shows_what_is_committed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == readme.render(ROOT), "README.md is stale: make reports"
    shown = [path.stem for path in sorted((DEMO / "figures").iterdir())]
    assert shown == sorted(readme.FIGURES)
