"""A deck of slides from a chapter: one HTML file that asks nothing of any other host.

    python nbs/teach/slides.py 08_score --out deck.html

A slide for each `##` section: its heading, its first sentences, its first question, its numbered
equations and its first stored figure. Cells with the tag `slide` take the place of the first
sentences and of the figure. Keys: arrows, space, page up and down, home, end; on a phone, a swipe."""

import argparse
import html
import json
import re
import sys
from pathlib import Path

try:
    from latex2mathml.converter import convert
except ModuleNotFoundError:  # formulas are then shown as TeX
    convert = None

NBS = Path(__file__).resolve().parents[1]
FRAME = Path(__file__).with_name("deck.html")  # style, keys, and the places of title and slides
LONG, SHORT, LISTED, EQUATIONS = 480, 300, 3, 2  # letters without and with a picture; most of each
NO_PROSE = ("|", "#", "$$", "<", "```", ">", "**Needs", "**Later", "---")


def mathml(tex, display="inline"):
    "MathML of a formula; the TeX itself where that cannot be made."
    try:
        norm = re.sub(r"(\\[Bb]igg?[lr]?)?(\\[lr]?Vert|\\\|)", "‖", tex)
        made = convert(norm, display=display)
    except Exception:  # no converter, or a formula that it does not know
        made = "\\"
    return (
        f"<code>{html.escape(tex)}</code>" if "\\" in made else re.sub(r' xmlns="[^"]*"', "", made)
    )


def inline(text):
    "A line of Markdown as HTML; links and citations leave their text only."
    kept = []
    text = re.sub(r"\s*\(\[[^\]]*\]\([^)]*\)\)|\s*\[@[^\]]*\]", "", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for what, make in ((r"`([^`]+)`", lambda v: f"<code>{html.escape(v)}</code>"),
                       (r"\$([^$]+)\$", mathml)):  # fmt: skip
        text = re.sub(what, lambda m: kept.append(make(m[1])) or f"\0{len(kept) - 1}\0", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text, quote=False))
    text = re.sub(r"\*(.+?)\*", r"<em>\1</em>", text)
    return re.sub("\0(\\d+)\0", lambda m: kept[int(m[1])], text)


def first_sentences(text, letters):
    "As many whole sentences as fit, at least one."
    taken = ""
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z*$\[])", " ".join(text.split())):
        if taken and len(taken) + len(sentence) > letters:
            break
        taken += " " + sentence
    return taken.strip()


def sections(cells):
    "[(heading, [cells])], the first of them the page's title; a cell that holds two headings is cut."
    found = []
    for cell in cells:
        source = "".join(cell["source"])
        parts = [source] if cell["cell_type"] == "code" else re.split(r"(?m)^(?=##? )", source)
        for part in filter(str.strip, parts):
            head = re.match(r"##? (.+)\n?", part) if cell["cell_type"] == "markdown" else None
            if head:
                found.append((head[1].strip(), []))
            if found:
                found[-1][1].append({**cell, "source": part[head.end() if head else 0 :]})
    return found


def picture(cells):
    "The first stored figure of these cells as an element with its alt text, or nothing."
    for cell in cells:
        said = re.search(r'(?m)^#\|\s*fig-alt:\s*"?(.*?)"?\s*$', cell["source"])
        for data in (o.get("data", {}) for o in cell.get("outputs", ()) if said):
            if "image/png" in data:
                code = "".join("".join(data["image/png"]).split())
                alt = html.escape(said[1].replace('\\"', '"'))
                return f'<figure><img alt="{alt}" src="data:image/png;base64,{code}"></figure>'
    return ""


def slide(heading, cells, level=2):
    chosen = [c for c in cells if "slide" in c["metadata"].get("tags", ())]
    figure = picture(chosen) or picture(cells)
    texts = [c["source"] for c in chosen or cells if c["cell_type"] == "markdown"]
    blocks = [b.strip() for text in texts for b in re.split(r"\n\s*\n", text) if b.strip()]
    asked = [b for b in blocks if b.startswith("**Before you run it")][:1]
    listed = [b for b in blocks if re.match(r"- |\d+\. ", b)][:1]
    before = blocks[: blocks.index(asked[0])] if asked and not chosen else blocks  # no answers
    plain = [b for b in before if b not in asked + listed and not b.startswith(NO_PROSE)]
    letters = SHORT if figure else LONG
    body = [f"<p>{inline(first_sentences(b, letters))}</p>" for b in plain[: None if chosen else 1]]
    if level == 1:
        body = [f"<p>{inline(b[1:].strip())}</p>" for b in blocks if b.startswith("> ")][:1]
    elif listed and listed[0] in before and not figure:
        items = re.split(r"(?m)^(?:- |\d+\. )", listed[0])[1 : LISTED + 1]
        made = "".join(f"<li>{inline(first_sentences(v, LONG // LISTED))}</li>" for v in items)
        body.append(f"<ul>{made}</ul>")
    whole = "\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
    for tex in re.findall(r"\$\$(.+?)\$\$", whole, re.S):
        if (tag := re.search(r"\\tag\{(\w+)\}", tex)) and sum("eq" in b for b in body) < EQUATIONS:
            made = mathml(tex.replace(tag[0], "").strip(" .,\n"), "block")
            body.append(f'<div class="eq">{made}<span>({tag[1]})</span></div>')
    if not body and not asked:  # a table alone: its first column
        first = re.findall(r"(?m)^\|\s*([^|-][^|]+?)\s*\|", "\n".join(texts))[: 4 * LISTED]
        body.append("<ul>" + "".join(f"<li>{inline(v)}</li>" for v in first) + "</ul>")
    body += [f'<p class="ask">{inline(first_sentences(b, letters))}</p>' for b in asked]
    return (
        f"<section><h{level}>{inline(heading)}</h{level}>\n{chr(10).join(body)}\n{figure}</section>"
    )


def deck(page):
    "The deck of a chapter, as one HTML text."
    cells = json.loads((NBS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    (title, opening), *rest = sections(cells)
    slides = [slide(title, opening[:1], 1), *(slide(*section) for section in rest)]
    page = FRAME.read_text(encoding="utf-8").replace("TITLE", html.escape(title))
    return page.replace("SLIDES", "\n".join(slides))


def main(argv=None):
    parser = argparse.ArgumentParser(description="Slides of a chapter, as one HTML file.")
    parser.add_argument("page", help="a page of the course, say 08_score")
    parser.add_argument("--out", type=Path, help="the file to write; else PAGE.html here")
    args = parser.parse_args(argv)
    if not (NBS / f"{args.page}.ipynb").is_file():
        parser.error(f"page: got {args.page}, expected a page such as 08_score")
    out = args.out or Path(f"{args.page}.html")
    out.write_text(deck(args.page), encoding="utf-8")
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
