"""Run by Quarto after the site is made: search shows words, not raw TeX, equations can be linked to, and no page asks another host for anything.

By hand: `python nbs/site/after.py _docs`. Ends with 1, and one line for each, if a page would fetch something from outside."""

import json
import os
import pathlib
import re
import sys

TEX = [r"\\\((.*?)\\\)", r"\\\[(.*?)\\\]", r"\$\$(.*?)\$\$", r"\$([^$\n]+)\$"]
FETCHED = (
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=[\"'](?:https?:)?//[^\"']+",
    r"<link\b(?=[^>]*rel=[\"'](?:stylesheet|preload|icon|preconnect|modulepreload))[^>]*href=[\"'](?:https?:)?//[^\"']+",
    r"@import\s+(?:url\()?[\"']?(?:https?:)?//[^\"')]+",
    r"url\([\"']?(?:https?:)?//[^\"')]+",
)


def without_tex(text):
    "A text for the search box: formulas become '…'."
    for pattern in TEX:
        text = re.sub(pattern, "…", text, flags=re.S)
    return text


def fetched(text):
    "What a page or a style sheet asks of another host."
    return [m[0][:160] for pattern in FETCHED for m in re.finditer(pattern, text)]


def without_widgets(text):
    "A page without the scripts that only a live widget needs; the twins stand in their place."
    text = re.sub(r"<script[^>]*(?:require\.js|html-manager|polyfill)[^>]*></script>", "", text)
    return re.sub(
        r"<script type=\"application/vnd\.jupyter\.widget[^>]*>.*?</script>", "", text, flags=re.S
    )


def with_pages(text, folder):
    "Links of the picture cards lead to pages, where the notebook links to notebooks."
    there = lambda m: f'href="{m[1]}.html"' if (folder / f"{m[1]}.html").is_file() else m[0]
    block = r'<div class="chapters".*?</div>'
    return re.sub(block, lambda m: re.sub(r'href="([\w/]+)\.ipynb"', there, m[0]), text, flags=re.S)


def with_equations(text):
    """A numbered equation gets an anchor, `equation (3)` in the text a link to it.

    A number that the page does not have, and what stands in a link, a heading or code, stays."""
    numbers = []

    def anchored(m):
        number = re.search(r"\\tag\{(\w+)\}", m[2])
        if not number or number[1] in numbers:
            return m[0]
        numbers.append(number[1])
        return f'{m[1]} id="eq-{number[1]}">{m[2]}'

    display = r"(<span(?: [^>]*)? class=\"math display\"(?![^>]* id=))>(.*?</span>)"
    text = re.sub(display, anchored, text, flags=re.S)
    apart = re.split(r"(<(a|code|pre|script|style|h[1-6])\b.*?</\2>|<[^>]*>)", text, flags=re.S)

    def linked(m):
        return f'<a href="#eq-{m[2]}">{m[0]}</a>' if m[2] in numbers else m[0]

    for i in range(0, len(apart), 3):  # between them: an element, its name
        apart[i] = re.sub(r"\b([Ee]quation) \((\w+)\)", linked, apart[i])
        if i + 2 < len(apart):
            apart[i + 2] = ""
    return "".join(apart)


def main(folder):
    found = []
    for path in sorted(folder.rglob("*.html")):
        old = path.read_text(encoding="utf-8")
        new = with_equations(with_pages(without_widgets(old), path.parent))
        if new != old:
            path.write_text(new, encoding="utf-8")
        found += [f"{path.relative_to(folder)}: {what}" for what in fetched(new)]
    for path in sorted(folder.rglob("*.css")):
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(folder)}: {what}" for what in fetched(text)]
    search = folder / "search.json"
    if search.is_file():
        entries = json.loads(search.read_text(encoding="utf-8"))
        for entry in entries:
            entry["text"] = without_tex(entry.get("text", ""))
            entry["section"] = without_tex(entry.get("section", ""))
        search.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    print(*found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    where = (
        sys.argv[1] if len(sys.argv) > 1 else os.environ.get("QUARTO_PROJECT_OUTPUT_DIR", "_docs")
    )
    raise SystemExit(main(pathlib.Path(where)))
