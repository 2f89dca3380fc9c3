"""The site's pages in headless Chromium, without Quarto: the processed notebooks, our style sheet, KaTeX and a column as wide as the site's.

By hand: `python tests/site_pages.py 08_score 390 page.png [dark]` takes a screenshot;
`python tests/site_pages.py --table nbs/studies/site_pages.csv` measures every page on a phone's width: its weight, the time until
something is seen and until all is loaded, and how far the text moved meanwhile (Chromium's own layout shift; 0.1 is called good)."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import browser

ROOT = pathlib.Path(__file__).resolve().parent.parent
FRAME = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
{katex}<style>
:root {{ color-scheme: {scheme}; }}
body {{ margin: 0; font: 17px/1.5 system-ui, sans-serif; background: {paper}; color: {ink}; }}
a {{ color: {link}; }}
main {{ box-sizing: border-box; max-width: 920px; margin: 0 auto; padding: 0 12px; }}
pre {{ font: 14px/1.4 monospace; padding: .5rem; background: {shade}; margin: .5rem 0; }}
.jp-InputPrompt, .jp-OutputPrompt, .anchor-link {{ display: none; }}
{css}</style></head><body class="quarto-{scheme}"><main>{body}</main><script>
if (window.renderMathInElement) renderMathInElement(document.body, {{throwOnError: false, delimiters: [
  {{left: '$$', right: '$$', display: true}}, {{left: '$', right: '$', display: false}}]}});
</script></body></html>"""
LOOKS = dict(
    light=dict(scheme="light", paper="#fff", ink="#212529", link="#1a5fb4", shade="#f4f4f4"),
    dark=dict(scheme="dark", paper="#222", ink="#eee", link="#7ab7ff", shade="#2d2d2d"),
)


@functools.cache
def npm(name, version, folder):
    "A package of the npm registry, unpacked below `folder`; None where it cannot be had. Nothing of it is shipped."
    folder = pathlib.Path(folder)
    if shutil.which("npm") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        command = ["npm", "pack", "--silent", f"{name}@{version}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError):
        return None
    archive = next(iter(folder.glob(f"{name}-*.tgz")), None)
    if archive is None:
        return None
    with tarfile.open(archive) as tar:
        tar.extractall(folder / name, filter="data")
    return folder / name / "package"


def katex_head(package):
    if package is None:
        return ""
    at = (package / "dist").as_uri()
    scripts = "".join(
        f'<script src="{at}/{s}"></script>' for s in ("katex.min.js", "contrib/auto-render.min.js")
    )
    return f'<link rel="stylesheet" href="{at}/katex.min.css">{scripts}'


@functools.cache
def _body(notebook):
    "Text, code and outputs as HTML, without the widgets that need a kernel."
    import nbformat
    from nbconvert import HTMLExporter

    nb = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        lines = "".join(cell["source"]).splitlines()
        cell["source"] = "\n".join(s for s in lines if not s.startswith("#|"))
        said = (s.split(":", 1)[1].strip(' "') for s in lines if s.startswith("#| fig-alt:"))
        alt = next(said, "")
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if "image/png" in output.get("data", {}):
                output.setdefault("metadata", {})["image/png"] = {"alt": alt}
    node = nbformat.reads(json.dumps(nb), 4)
    return HTMLExporter(template_name="basic").from_notebook_node(node)[0]


def as_html(notebook, css, katex=None, look="light"):
    "One page, as a file would hold it."
    notebook = pathlib.Path(notebook)
    head, body = katex_head(katex), _body(notebook)
    return FRAME.format(title=notebook.stem, body=body, css=css, katex=head, **LOOKS[look])


@contextlib.contextmanager
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        instance = p.chromium.launch(executable_path=browser.chromium(), args=["--no-sandbox"])
        yield instance
        instance.close()


def write(notebook, folder, katex, look="light"):
    "The page as a file; its address."
    css = (ROOT / "nbs" / "styles.css").read_text(encoding="utf-8")
    path = folder / f"{pathlib.Path(notebook).stem}-{look}.html"
    path.write_text(as_html(notebook, css, katex, look), encoding="utf-8")
    return path.as_uri()


SEEN = """() => { const shift = {total: 0}; window.shift = shift;
new PerformanceObserver(list => { for (const e of list.getEntries()) shift.total += e.value; })
  .observe({type: "layout-shift", buffered: true}); }"""
TOLD = """() => { const nav = performance.getEntriesByType("navigation")[0];
const paint = performance.getEntriesByName("first-contentful-paint")[0];
return [paint ? paint.startTime : NaN, nav.loadEventEnd, window.shift.total]; }"""


def measured(browser_, where, width=390):
    "First paint and whole load in milliseconds, and layout shift, of one page."
    page = browser_.new_page(viewport=dict(width=width, height=800))
    page.add_init_script(f"({SEEN})()")
    page.goto(where, wait_until="load")
    page.wait_for_timeout(200)
    found = page.evaluate(TOLD)
    page.close()
    return found


def table(out, folder):
    "A row a page."
    import csv
    import datetime

    katex, day = npm("katex", "0.16", folder), datetime.date.today().isoformat()
    pages = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not p.parts[-2].startswith("_"))
    with chromium() as c, open(out, "w", newline="", encoding="utf-8") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow("page kilobytes first_paint_ms load_ms layout_shift date".split())
        for path in pages:
            where = write(path, folder, katex)
            size = (folder / where.rsplit("/", 1)[1]).stat().st_size / 1000
            paint, load, shift = measured(c, where)
            name = path.relative_to(ROOT / "nbs").with_suffix("").as_posix()
            rows.writerow([name, round(size), round(paint), round(load), round(shift, 4), day])
            print(
                f"{name:32s} {size:6.0f} kB {paint:6.0f} ms {load:6.0f} ms {shift:.4f}", flush=True
            )


def main(argv):
    import tempfile

    if argv[:1] == ["--table"]:
        return table(argv[1], pathlib.Path(tempfile.mkdtemp()))
    name, width, shot = argv[0], int(argv[1]), argv[2]
    look = argv[3] if len(argv) > 3 else "light"
    folder = pathlib.Path(tempfile.mkdtemp())
    where = write(ROOT / "nbs" / f"{name}.ipynb", folder, npm("katex", "0.16", folder), look)
    with chromium() as c:
        page = c.new_page(viewport=dict(width=width, height=800))
        page.goto(where)
        page.screenshot(path=shot, full_page=True)
        print(page.evaluate("document.scrollingElement.scrollWidth"), os.path.getsize(shot))


if __name__ == "__main__":
    main(sys.argv[1:])
