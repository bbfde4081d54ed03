"""The pages of a run: one a notebook, an index with cards and scores, and the index of all runs."""

import os
import re
from datetime import datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from helpers.report import markup, pages, runs, scores
from helpers.report.runs import common, list_runs
from helpers.results import read_json, write_atomic
from helpers.runner import provenance

SERIES = pages.TEMPLATES / "series"


def environment():
    """Jinja with the series' templates and filters."""
    env = jinja2.Environment(loader=jinja2.FileSystemLoader(SERIES), autoescape=True)
    env.filters |= {"day": day, "duration": duration, "headline": headline, "software": software}
    for name in ("page.css", "page.js", "theme.js"):
        env.globals[name.replace(".", "_")] = Markup((SERIES / name).read_text(encoding="utf-8"))
    return env


def day(iso):
    """An ISO time as "23 November 2026, 15:04 UTC"."""
    time = datetime.fromisoformat(iso)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def duration(seconds):
    """Seconds as "41 s" or "3 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def software(versions):
    """Versions as "Keras 3.12, TensorFlow 2.20"; empty where Keras has none."""
    if "keras" not in versions:
        return ""
    return f"Keras {versions['keras']}, TensorFlow {versions.get('tensorflow', 'none')}"


def headline(value):
    """A headline result as text: value and 95% interval."""
    text = f"{value['value']:.3f}"
    if value.get("ci_low") is None:
        return text
    return f"{text} (95% interval {value['ci_low']:.3f} to {value['ci_high']:.3f})"


def code_hash():
    """Hash of the code and templates that make the pages."""
    code = [__file__, *(module.__file__ for module in (markup, pages, runs, scores))]
    files = [*map(Path, code), *sorted(SERIES.iterdir())]
    return provenance.digest([provenance.file_hash(file) for file in files])


def stale_pages(folder, record):
    """Names of the pages that are missing, changed, or made by other code than today's."""
    if record.get("report") != code_hash():
        return sorted(record["pages"])
    files = {name: Path(folder, name) for name in record["pages"]}
    return [
        name for name, file in files.items()
        if not file.exists() or provenance.file_hash(file) != record["pages"][name]
    ]  # fmt: skip


def describe(name, folder, record):
    """What header and card say of a notebook: dict. Code, versions and device are its own."""
    entry = record["notebooks"][name]
    summary = read_json(folder.resolve() / "results", f"summaries/{name}.json")
    return {
        "versions": {}, "device": "", **entry, **summary, "name": name,
        "number": int(name.split("_")[0]), "url": f"{name}.html", "commit": commit_of(entry["git"]),
    }  # fmt: skip


def commit_of(git):
    """The state of the code in words, as in "at commit 1a2b3c4d5e"."""
    commit = f"at commit {git['commit'][:10]}" if git["commit"] else "outside git"
    return commit + (", with changes not committed" if git["dirty"] else "")


def sole(values, several):
    """The text that all `values` are, or `several` where they differ."""
    values = sorted({value for value in values if value})
    return values[0] if len(values) == 1 else several if values else ""


def write_pages(plan, folder, record):
    """Write the pages and the index of a run into `folder`; enters their hashes in `record`."""
    folder, env = Path(folder), environment()
    names = sorted(record["notebooks"])
    cards = [describe(name, folder, record) for name in names]
    hidden = paths_to_hide(plan, folder)
    made = {}
    for place, card in enumerate(cards):
        notebook = pages.clean(pages.load(folder / "executed" / f"{card['name']}.ipynb"), hidden)
        title, question = pages.split_head(pages.lighten(notebook))
        card["figure"] = thumbnail(notebook)
        body, contents = pages.render(notebook, names)
        made[card["url"]] = env.get_template("page.html.j2").render(
            **common(record), card=card, title=title, question=question or card["question"],
            body=Markup(body), contents=contents, number=place + 1, total=len(cards),
            before=cards[place - 1] if place else None,
            after=cards[place + 1] if place + 1 < len(cards) else None,
        )  # fmt: skip
    made["index.html"] = env.get_template("run.html.j2").render(
        **common(record), cards=cards,
        commit=sole([c["commit"] for c in cards], "at several commits: see each page"),
        device=sole([c["device"] for c in cards], "Several devices: see each card"),
        software=sole([software(c["versions"]) for c in cards], "Several versions: see each page"),
        tables=scores.tables(folder / "results"),
        runs=list_runs(plan["reports"], plan["root"], record),
    )  # fmt: skip
    for name, text in made.items():
        write_text(folder / name, text)
    record["pages"] = {name: provenance.file_hash(folder / name) for name in made}
    record["report"] = code_hash()


def write_text(path, text):
    """Write a page atomically, without the blank lines that templates leave."""
    text = re.sub(r"\n\s*\n(\s*\n)+", "\n\n", text)
    write_atomic(path.resolve(), lambda file: file.write_text(text, encoding="utf-8"))


def thumbnail(notebook):
    """The key figure for the card: dict src, alt, sheet (photographs, which may be cropped).

    None where the notebook shows no image.
    """
    found = pages.key_figure(notebook)
    if not found:
        return None
    data, mime, alt = found
    src = f"data:image/jpeg;base64,{pages.reencode(data, 720)}"
    return {"src": src, "alt": alt, "sheet": mime == "image/jpeg"}


def paths_to_hide(plan, folder):
    """Paths of this machine and what the pages show in their place."""
    run, root = plan["run"], plan["root"]
    shown = f"reports/{run}"
    hidden = {str(folder): shown, f"reports/{folder.name}": shown, f"{root}/": "", str(root): "."}
    hidden |= {f"{Path.home()}/": "~/", f"{plan['reports']}/": "reports/"}
    if folder.resolve().is_relative_to(root):
        hidden[folder.resolve().relative_to(root).as_posix()] = shown
    given = [values.get("DATA") for values in plan["parameters"].values()]
    for data in filter(None, [*given, os.environ.get("BREAKHIS_DIR")]):
        path = Path(root, Path(data).expanduser())
        hidden |= {str(place): path.name for place in (path, path.resolve())}
    return hidden


def write_runs(reports, root):
    """Write `reports/index.html`: all runs, the stale ones marked as of now."""
    env = environment()
    text = env.get_template("runs.html.j2").render(runs=list_runs(reports, root))
    write_text(Path(reports, "index.html"), text)
