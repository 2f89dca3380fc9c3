"""Every page of the site in Chromium: nothing scrolls sideways on a phone, nothing comes from another host, names for who cannot see."""

import importlib.util
import json
import pathlib
import re

import browser
import pytest
import site_pages

ROOT = pathlib.Path(__file__).resolve().parent.parent
reason = browser.missing()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")
PAGES = sorted(
    p
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part[0] in "._" for part in p.relative_to(ROOT / "nbs").parts)
    and "assignments" not in p.parts
)
READ = [
    p for p in PAGES if re.match(r"(index|0[08]|1[1-7])", p.name)
]  # what a newcomer opens first
OUTSIDE = r"""(?:src|href)=["'](?:https?:)?//(?!www\.w3\.org)|url\(["']?(?:https?:)?//"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "The folder of the pages, and KaTeX where the registry can be reached."
    folder = tmp_path_factory.mktemp("pages")
    return folder, site_pages.npm("katex", "0.16", folder / "npm")


@pytest.fixture(scope="module")
def chromium():
    with site_pages.chromium() as c:
        yield c


def test_no_page_scrolls_sideways_on_a_phone(made, chromium):
    folder, katex = made
    page, wide = chromium.new_page(viewport=dict(width=390, height=800)), {}
    for path in PAGES:
        page.goto(site_pages.write(path, folder, katex))
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > 390:
            wide[path.name] = width
        broken = "[...document.querySelectorAll('.katex-error')].map(e => e.title)"
        assert not page.evaluate(broken), (path.name, page.evaluate(broken))
    assert not wide, wide


def test_a_page_that_is_too_wide_is_seen(made, chromium, tmp_path):
    folder, katex = made
    nb = dict(cells=[], metadata={}, nbformat=4, nbformat_minor=5)
    text = '# T\n\n<div style="width: 500px">wide</div>'
    nb["cells"] = [dict(cell_type="markdown", id="a", metadata={}, source=text)]
    (tmp_path / "w.ipynb").write_text(json.dumps(nb))
    page = chromium.new_page(viewport=dict(width=390, height=800))
    page.goto(site_pages.write(tmp_path / "w.ipynb", folder, katex))
    assert page.evaluate("document.scrollingElement.scrollWidth") > 390


def test_pages_ask_no_other_host_and_weigh_at_most_a_megabyte(made):
    folder, _ = made
    for path in PAGES:
        text = site_pages.as_html(path, css="")
        media = re.findall(r"<(?:script|img|iframe|link|video|source)\b[^>]*>", text)
        assert not [m for m in media if re.search(OUTSIDE, m)], path.name
        assert len(text) <= 1_000_000, (path.name, len(text))


def test_figures_do_not_move_the_text(made, chromium):
    "Cumulative layout shift of the pages that are read first: pictures in the page itself shift nothing."
    folder, katex = made
    watch = """new Promise(done => { let sum = 0;
      new PerformanceObserver(list => list.getEntries().forEach(e => { if (!e.hadRecentInput) sum += e.value; }))
        .observe({type: 'layout-shift', buffered: true});
      setTimeout(() => done(sum), 300); })"""
    page = chromium.new_page(viewport=dict(width=1280, height=800))
    for path in READ:
        page.goto(site_pages.write(path, folder, katex))
        assert page.evaluate(watch) < 0.1, path.name  # Lighthouse's bound for "good"


@pytest.mark.parametrize("look", ["light", "dark"])
def test_pages_can_be_read_by_all(look, made, chromium):
    folder, katex = made
    axe = site_pages.npm("axe-core", "4", folder / "npm")
    if axe is None:
        pytest.skip("axe-core cannot be had: no npm, or no registry")
    size = dict(width=1280, height=800)
    page, found = chromium.new_page(viewport=size, color_scheme=look), []
    for path in READ:
        page.goto(site_pages.write(path, folder, katex, look))
        page.add_script_tag(path=str(axe / "axe.min.js"))
        rules = "image-alt link-name button-name label aria-valid-attr aria-roles duplicate-id-aria color-contrast".split()
        said = page.evaluate("rules => axe.run('main', {runOnly: rules})", rules)
        found += [(path.name, v["id"], v["nodes"][0]["html"][:120]) for v in said["violations"]]
    assert not found, found


# ---------------------------------------------------------------- what Quarto runs afterwards


@pytest.fixture(scope="module")
def after():
    spec = importlib.util.spec_from_file_location("after", ROOT / "nbs" / "site" / "after.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_search_has_no_tex(after):
    raw = r"the score \(s = -\varepsilon/\sigma\) and $$x^2 \tag{3}$$ of $5 and"
    assert after.without_tex(raw) == "the score … and … of $5 and"


@pytest.mark.parametrize(
    "text, bad",
    [
        ('<script src="https://cdn.example/x.js"></script>', 1),
        ('<link href="//fonts.example/a.css" rel="stylesheet">', 1),
        ("@import url(https://fonts.example/css?family=Lato);", 1),
        ("a { background: url('https://x.example/a.png') }", 1),
        (
            '<a href="https://github.com/x">code</a><img src="a.png"><link rel="canonical" href="https://x.example">',
            0,
        ),
    ],
)
def test_a_page_that_asks_another_host_is_named(after, text, bad):
    assert bool(after.fetched(text)) == bool(bad)


def test_equations_can_be_linked_to(after):
    page = (
        r'<p>See equation (1).</p><span class="math display">\[a \tag{1}\]</span><span class="math '
        r'display">\[b\]</span><h2>Equation (1)</h2><code>equation (1)</code><p>Equation (2), '
        r'<a href="x.html">equation (1)</a>, equation <em>(1)</em></p>'
    )
    made = after.with_equations(page)
    assert r'<span class="math display" id="eq-1">\[a \tag{1}\]</span>' in made
    assert '<p>See <a href="#eq-1">equation (1)</a>.</p>' in made
    assert made.count('href="#eq-1"') == 1 and "eq-2" not in made and made.count("id=") == 1
    assert after.with_equations(made) == made  # run again: nothing to do


def test_the_site_is_finished_in_place(after, tmp_path, capsys):
    (tmp_path / "a.html").write_text(
        '<script src="https://cdn.example/require.js" integrity="x"></script><p>text</p>'
    )
    (tmp_path / "search.json").write_text(
        json.dumps([dict(text="a $x$ b", section="", href="a.html")])
    )
    assert after.main(tmp_path) == 0 and capsys.readouterr().out.strip() == ""
    assert (tmp_path / "a.html").read_text() == "<p>text</p>"
    assert json.loads((tmp_path / "search.json").read_text())[0]["text"] == "a … b"
    (tmp_path / "c.html").write_text(
        '<div class="chapters"><a href="a.ipynb"></a></div><a href="a.ipynb">'
    )
    assert after.main(tmp_path) == 0
    assert (tmp_path / "c.html").read_text().count('href="a.html"') == 1  # a download stays one
    (tmp_path / "b.html").write_text('<img src="https://x.example/a.png">')
    assert after.main(tmp_path) == 1 and "b.html" in capsys.readouterr().out
