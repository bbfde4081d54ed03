"""The HTML of a notebook, completed: headings with ids, numbered figures, tables that scroll."""

import base64
import io
import re

from PIL import Image

NUMBER = re.compile(r"[-+−–]?[\d,.]*%?")  # also a dash or nothing, for a missing value
INTERVAL = re.compile(r"[-+−–]?[\d.,]+%? \(.{5,24}\)")


def headings(soup):
    """Give each heading an id of its own; the list (level, id, text)."""
    used, contents = {}, []
    for link in soup.find_all("a", class_="anchor-link"):
        link.decompose()
    for tag in soup.find_all(["h1", "h2", "h3"]):
        text = tag.get_text().strip()
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        used[base] = used.get(base, 0) + 1
        tag["id"] = base if used[base] == 1 else f"{base}-{used[base]}"
        tag.name = "h2" if tag.name == "h1" else tag.name
        contents.append((int(tag.name[1]), tag["id"], text))
    return contents


def figures(soup):
    """Number the figures and give each image its size, so that the page does not jump."""
    for number, figure in enumerate(soup.find_all("figure"), 1):
        figure["id"] = f"figure-{number}"
        if figure.figcaption:
            figure.figcaption.insert(0, strong(soup, f"Figure {number}. "))
    for image in soup.find_all("img", src=re.compile("^data:")):
        data = base64.b64decode(image["src"].partition(",")[2])
        image["width"], image["height"] = Image.open(io.BytesIO(data)).size


def tables(soup):
    """Let each table scroll by itself, by keyboard too, under a caption that stays in view."""
    number = 0
    for table in soup.find_all("table"):
        frame = table.parent if "table-scroll" in table.parent.get("class", []) else None
        frame = frame or table.wrap(soup.new_tag("div", attrs={"class": "table-scroll"}))
        frame.attrs.update(tabindex="0", role="region")
        if table.caption:
            number += 1
            caption = table.caption.extract()
            caption.name, caption["class"], caption["id"] = "p", "caption", f"table-{number}"
            caption.insert(0, strong(soup, f"Table {number}. "))
            frame.insert_before(caption)
            frame["aria-labelledby"] = table["aria-labelledby"] = caption["id"]
        else:
            frame["aria-label"] = heading_of(table)
        tidy(table)


def tidy(table):
    """Align columns of numbers to the right, with their heads; drop a head without words."""
    if table.thead and not table.thead.get_text().strip():
        table.thead.decompose()
    rows = [row.find_all(["td", "th"]) for row in table.find_all("tr")]
    for tag in table.find_all(["tr", "td", "th"]):
        del tag["style"]
        if INTERVAL.fullmatch(tag.get_text().strip()):
            tag["class"] = "interval"
    for column in zip(*rows, strict=False):
        body = [cell for cell in column if cell.name == "td"]
        if body and all(NUMBER.fullmatch(cell.get_text().strip()) for cell in body):
            for cell in column:
                cell["class"] = "number"


def heading_of(tag):
    """Text of the heading above `tag`."""
    above = tag.find_previous(["h2", "h3"])
    return f"Table under {above.get_text().strip()}" if above else "Inputs, outputs and time"


def strong(soup, text):
    """A bold piece of text."""
    tag = soup.new_tag("strong")
    tag.string = text
    return tag
