"""The site, checked without Quarto: nbdev's own processing, then every nav entry, link, anchor, citation and picture."""

import html.parser
import json
import os
import pathlib
import posixpath
import re
import shutil
import subprocess
import sys
import urllib.parse

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("nbdev", reason="nbdev is a development requirement")

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"


class Page(html.parser.HTMLParser):
    "What a rendered page links to, which anchors it has and which pictures."

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.images, self.heading = [], set(), [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == "a" and a.get("href") and "anchor-link" not in a.get("class", ""):
            self.links.append(a["href"])
        if tag == "img":
            self.images.append(a)
        if a.get("id"):
            self.anchors.add(a["id"])
        if tag in ("h1", "h2", "h3", "h4"):
            self.heading = ""

    def handle_data(self, data):
        if self.heading is not None:
            self.heading += data

    def handle_endtag(self, tag):
        if tag in ("h1", "h2", "h3", "h4") and self.heading is not None:
            self.anchors.add(slug(self.heading))
            self.heading = None


def slug(heading):
    "Pandoc's automatic anchor of a heading, or its explicit {#anchor}."
    heading = heading.replace("¶", "").strip()
    if m := re.search(r"\{#([\w-]+)\}$", heading):
        return m[1]
    words = re.sub(r"[^\w\s.-]", "", heading.lower())
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", words.strip()))


def bib_keys(text):
    return set(re.findall(r"^@\w+\{([^,\s]+),", text, flags=re.M))


def cited(text):
    "Keys of [@key] and [@one; @two], those in code left out."
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    return {
        k
        for group in re.findall(r"\[([^\]]*@[^\]]*)\]", text)
        for k in re.findall(r"(?<![\w])@([A-Za-z][\w-]*)", group)
    }


def in_nav(config):
    "Every page that the navbar or the sidebar names, in order."

    def walk(node):
        if isinstance(node, str):
            yield node
        elif isinstance(node, list):
            for n in node:
                yield from walk(n)
        elif isinstance(node, dict):
            yield from walk([node[k] for k in ("href", "contents", "left", "right") if k in node])

    site = config["website"]
    return [*walk(site["sidebar"]), *walk(site["navbar"])]


def files(folder, kind):
    "Pages of this kind, relative to the folder, those in folders inside it too."
    found = [p.relative_to(folder) for p in folder.rglob(f"*.{kind}")]
    hidden = lambda rel: any(part[0] in "._" for part in rel.parts)
    return sorted(rel.as_posix() for rel in found if not hidden(rel))


def read(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    for c in nb["cells"]:
        c["source"] = "".join(c["source"])
    return nb


def problems(raw, site):
    "All that is wrong, one line each; `raw` holds the notebooks as written, `site` as nbdev has processed them."
    import nbformat
    from nbconvert import HTMLExporter

    config = yaml.safe_load((site / "_quarto.yml").read_text(encoding="utf-8"))
    names = {rel for kind in ("ipynb", "qmd", "md") for rel in files(site, kind)}
    sidebar = [*in_nav({"website": {"sidebar": config["website"]["sidebar"], "navbar": []}})]
    bad = [
        f"_quarto.yml: {n} is in the nav, but there is no such page"
        for n in in_nav(config)
        if n not in names
    ]
    bad += [f"_quarto.yml: {n} is not in the sidebar" for n in sorted(names - set(sidebar))]
    bad += [
        f"_quarto.yml: {n} is twice in the sidebar"
        for n in sorted({n for n in sidebar if sidebar.count(n) > 1})
    ]
    for f in [config["bibliography"], config["format"]["html"]["css"], *config["metadata-files"]]:
        if not (site / f).is_file():
            bad.append(f"_quarto.yml: no file {f}")

    keys, used, pages = bib_keys((site / "references.bib").read_text(encoding="utf-8")), set(), {}
    exporter = HTMLExporter(template_name="basic")
    for rel in files(site, "ipynb"):
        nb, written = read(site / rel), read(raw / rel)
        prose = "\n".join(c["source"] for c in nb["cells"] if c["cell_type"] == "markdown")
        for k in sorted(cited(prose)):
            used.add(k)
            if k not in keys:
                bad.append(f"{rel}: [@{k}] is not in references.bib")
        bad += [
            f"{rel}: {line}"
            for line in [
                *title_problems(written),
                *picture_problems(written),
                *code_problems(written, nb),
            ]
        ]
        nb["cells"] = [c for c in nb["cells"] if c["cell_type"] == "markdown"]
        pages[rel] = Page(exporter.from_notebook_node(nbformat.reads(json.dumps(nb), 4))[0])
    bad += [f"references.bib: {k} is cited nowhere" for k in sorted(keys - used)]

    for name, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or link.startswith("//"):
                continue
            path = urllib.parse.unquote(url.path)
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            )
            if target in pages:
                if url.fragment and urllib.parse.unquote(url.fragment) not in pages[target].anchors:
                    bad.append(
                        f"{name}: link {link}: no heading in {target} gives the anchor #{url.fragment}"
                    )
            elif not (site / target).is_file():
                bad.append(f"{name}: link {link}: no such page or file on the site")
        for a in page.images:
            if not a.get("alt"):
                bad.append(
                    f"{name}: a picture in the text has no alt text: {a.get('src', '')[:60]}"
                )
    return bad


def title_problems(nb):
    "nbdev moves the whole cell of the H1 into the page's head: only title and a one-line promise may stand in it."
    first = next((c["source"] for c in nb["cells"] if c["cell_type"] == "markdown"), "")
    lines = [line for line in first.splitlines() if line.strip()]
    if not lines or not lines[0].startswith("# "):
        yield "the first text cell is no H1 title"
    elif len(lines) < 2 or not lines[1].startswith("> "):
        yield "no `> promise` in one line under the title"
    elif len(lines) > 2:
        yield f"text beside title and one-line promise in the H1 cell is lost on the site: {lines[2][:60]!r}; give it a cell of its own"


def picture_problems(nb):
    "Every picture among the outputs has alt text, and none needs a kernel to be seen."
    for i, c in enumerate(nb["cells"]):
        for o in c.get("outputs", []):
            data = o.get("data", {})
            if WIDGET in data and not any(k.startswith("image/") for k in data):
                said = "".join(data.get("text/plain", "")).strip()[:50]
                yield f"cell {i}: a widget without a picture for pages without a kernel: {said!r}"
            if any(k.startswith("image/") for k in data) and not re.search(
                r"^#\|\s*fig-alt:\s*\S", c["source"], flags=re.M
            ):
                yield f"cell {i}: a figure without `#| fig-alt: ...`"
            for a in Page("".join(data.get("text/html", ""))).images:
                if not a.get("alt"):
                    yield f"cell {i}: a picture in HTML without alt text"


def code_problems(written, shown):
    "The code that a lesson exports is its subject: it must be readable on the site. nbdev's directives must not."
    kept = "\n".join(c["source"] for c in shown["cells"] if c["cell_type"] == "code")
    for line in re.findall(r"^#\|.*$", kept, flags=re.M):
        if not re.match(r"#\|\s*[\w-]+:", line):
            yield f"the line {line!r} is no option that Quarto knows; add `#| hide` to its cell"
    for i, c in enumerate(written["cells"]):
        body = [line for line in c["source"].splitlines() if not line.startswith("#|")]
        left = body and body[0].startswith("__getattr__ = moved(")  # the lines of names that moved
        if re.match(r"#\|\s*export", c["source"]) and body and not left and body[-1] not in kept:
            yield f"cell {i}: exported code is not shown on the site; settings.ini needs skip_procs = {SKIP}"
            return


SKIP = "add_show_docs,exec_show_docs,rm_export,add_links"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The tree, copied and processed by nbdev: (notebooks as written, as processed)."
    copy = tmp_path_factory.mktemp("site") / "tree"
    copy.mkdir()
    for name in ("nbs", "vidiffedu"):
        shutil.copytree(
            ROOT / name,
            copy / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", ".*"),
        )
    for name in ("settings.ini", "_quarto.yml", "README.md"):
        shutil.copy2(ROOT / name, copy)
    run = subprocess.run(
        [sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs(n_workers=0)"],
        cwd=copy,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(copy)},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return copy / "nbs", copy / "_proc"


def test_site_is_whole(site):
    found = problems(*site)
    assert not found, "\n" + "\n".join(found)


def test_quarto_config_is_one_file():
    link = ROOT / "nbs" / "_quarto.yml"
    assert link.is_symlink() and os.readlink(link) == "../_quarto.yml", (
        "nbs/_quarto.yml must be a link to ../_quarto.yml"
    )


def test_nbdev_yml_is_what_nbdev_writes():
    "`nbdev_docs` rewrites nbs/nbdev.yml from settings.ini: it must find nothing to change."
    code = (
        "import nbdev.quarto as q; from nbdev.config import get_config as g; c = g(); "
        "v = {k: c[k] for k in ['title', 'description', 'branch', 'git_url', 'doc_host', 'doc_baseurl']}; "
        "print(q._nbdev_yml.format(**v, doc_path=c.doc_path.name), end='')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert (ROOT / "nbs" / "nbdev.yml").read_text(encoding="utf-8") == run.stdout


# ---- the check can fail: a small site, broken in one place at a time


def small_site(folder, cells=None, quarto=None, bib="@misc{one2020,\n title = {One}\n}\n", up=None):
    cell = lambda kind, source, **more: dict(
        cell_type=kind,
        metadata={},
        source=source,
        id=f"c{abs(hash(source)) % 10**7}",
        **(dict(outputs=more.get("outputs", []), execution_count=None) if kind == "code" else {}),
    )
    pages = {
        "index": [
            cell("markdown", "# Home\n\n> A promise"),
            cell("markdown", "## A place\n\n[@one2020] and [there](b.ipynb#second-part)"),
        ],
        "b": [cell("markdown", "# B\n\n> Another"), cell("markdown", "## Second part")]
        + [cell(*c[:2], **(c[2] if len(c) > 2 else {})) for c in cells or []],
        "in/c": [
            cell("markdown", "# C\n\n> A third"),
            cell("markdown", up or "[up](../b.ipynb#second-part)"),
        ],
    }
    raw, out = folder / "raw", folder / "out"
    for d in (raw, out):
        (d / "in").mkdir(parents=True)
        for name, content in pages.items():
            (d / f"{name}.ipynb").write_text(
                json.dumps(dict(cells=content, metadata={}, nbformat=4, nbformat_minor=5))
            )
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    config["website"] = quarto or dict(
        sidebar=dict(
            contents=["index.ipynb", dict(section="S", contents=["b.ipynb", "in/c.ipynb"])]
        ),
        navbar=dict(left=[dict(href="index.ipynb")]),
    )
    (out / "_quarto.yml").write_text(yaml.dump(config))
    (out / "references.bib").write_text(bib)
    for f in ("styles.css", "nbdev.yml"):
        (out / f).write_text("")
    return raw, out


def test_a_whole_site_passes(tmp_path):
    assert problems(*small_site(tmp_path)) == []


@pytest.mark.parametrize(
    "broken, said",
    [
        (
            dict(
                quarto=dict(
                    sidebar=dict(contents=["index.ipynb", "b.ipynb", "in/c.ipynb", "gone.ipynb"]),
                    navbar={},
                )
            ),
            "gone.ipynb is in the nav",
        ),
        (
            dict(quarto=dict(sidebar=dict(contents=["index.ipynb", "in/c.ipynb"]), navbar={})),
            "b.ipynb is not in the sidebar",
        ),
        (
            dict(
                quarto=dict(
                    sidebar=dict(contents=["index.ipynb", "b.ipynb", "b.ipynb", "in/c.ipynb"]),
                    navbar={},
                )
            ),
            "twice in the sidebar",
        ),
        (dict(cells=[("markdown", "[away](nowhere.ipynb)")]), "nowhere.ipynb: no such page"),
        (dict(cells=[("markdown", "[up](index.ipynb#a-plaice)")]), "#a-plaice"),
        (dict(up="[beside](b.ipynb)"), "in/c.ipynb: link b.ipynb: no such page"),
        (dict(up="[up](../b.ipynb#gone)"), "#gone"),
        (dict(cells=[("markdown", "[here](#first-part)")]), "#first-part"),
        (
            dict(cells=[("markdown", "as in [@two2021, eq. 3]")]),
            "[@two2021] is not in references.bib",
        ),
        (dict(bib="@misc{one2020,\n}\n@misc{three2022,\n}\n"), "three2022 is cited nowhere"),
        (dict(cells=[("markdown", "![](styles.css)")]), "no alt text"),
        (
            dict(
                cells=[
                    (
                        "code",
                        "plot()",
                        dict(
                            outputs=[
                                dict(
                                    output_type="display_data",
                                    metadata={},
                                    data={"image/png": "AAAA"},
                                )
                            ]
                        ),
                    )
                ]
            ),
            "without `#| fig-alt",
        ),
        (
            dict(
                cells=[
                    (
                        "code",
                        "play()",
                        dict(
                            outputs=[
                                dict(
                                    output_type="display_data",
                                    metadata={},
                                    data={"text/html": "<img src='x'>"},
                                )
                            ]
                        ),
                    )
                ]
            ),
            "HTML without alt",
        ),
        (
            dict(
                cells=[
                    (
                        "code",
                        "slider",
                        dict(
                            outputs=[
                                dict(output_type="display_data", metadata={}, data={WIDGET: {}})
                            ]
                        ),
                    )
                ]
            ),
            "widget without a picture",
        ),
    ],
)
def test_a_broken_site_is_reported(tmp_path, broken, said):
    found = problems(*small_site(tmp_path, **broken))
    assert len(found) == 1 and said in found[0], found


@pytest.mark.parametrize(
    "source, said",
    [
        ("# T\n\n> P\n\nThis would be lost.", "lost"),
        ("# T\n\nno promise", "promise"),
        ("## not a title", "no H1"),
        ("# T\n\n> P on\n> two lines", "lost"),
    ],
)
def test_a_bad_title_cell_is_reported(source, said):
    found = list(title_problems(dict(cells=[dict(cell_type="markdown", source=source)])))
    assert len(found) == 1 and said in found[0], found


def test_hidden_code_is_reported():
    nb = dict(cells=[dict(cell_type="code", source="#| export\ndef f(): pass")])
    shown = dict(cells=[dict(cell_type="code", source='#| fig-alt: "f"\ndef f(): pass')])
    assert list(code_problems(nb, shown)) == []
    assert len(list(code_problems(nb, dict(cells=[])))) == 1
    assert "default_exp" in next(
        code_problems(nb, dict(cells=[dict(cell_type="code", source="#| default_exp core")]))
    )


def test_links_of_the_frame_lead_to_headings():
    "Header and footer of the site link to sections of pages: each is there."
    links = re.findall(r"([\w/]+\.ipynb)#([\w-]+)", (ROOT / "_quarto.yml").read_text("utf-8"))
    assert links  # the footer's "How to cite" at least
    for page, anchor in links:
        cells = read(ROOT / "nbs" / page)["cells"]
        text = "\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
        assert anchor in [slug(h) for h in re.findall(r"(?m)^#+ (.+)$", text)], (page, anchor)


def test_anchors_follow_pandoc():
    "Examples from Pandoc's manual, extension auto_identifiers."
    assert slug("Heading identifiers in HTML") == "heading-identifiers-in-html"
    assert slug("*Dogs*?--in *my* house?".replace("*", "")) == "dogs--in-my-house"
    assert slug("3. Applications") == "applications"
    assert slug("Named {#by-hand}") == "by-hand"
