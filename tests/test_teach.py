"""The course kit: decks of slides, the syllabus, the page of errata."""

import html.parser
import importlib.util
import json
import math
import re
from pathlib import Path

import pytest

from vidiffedu import copies

NBS = Path(__file__).resolve().parents[1] / "nbs"
TEACH = NBS / "teach"
CHAPTERS = sorted(p.stem for p in NBS.glob("*.ipynb") if p.stem[:2] in "08 11 12 13 14 15 16 17")
LESSONS = sorted(p.stem for p in NBS.glob("[01][0-9]_*.ipynb"))
spec = importlib.util.spec_from_file_location("slides", TEACH / "slides.py")
slides = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slides)
each_chapter = pytest.mark.parametrize("page", CHAPTERS)


def markdown(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


class Tags(html.parser.HTMLParser):
    "Every opening tag with its attributes, and the text of each slide's paragraphs."

    def __init__(self, text):
        super().__init__()
        self.tags, self.slides, self.open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.slides.append([])
        self.open = self.open or tag in ("p", "li")
        if tag in ("p", "li"):
            self.slides[-1].append("")

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("p", "li")

    def handle_data(self, data):
        if self.open:
            self.slides[-1][-1] += data


def markdown_cell(text, *tags):
    return dict(cell_type="markdown", source=text, metadata=dict(tags=[*tags]))


def code_cell(text, png=None, *tags):
    outputs = [dict(data={"image/png": png})] if png else []
    return dict(cell_type="code", source=text, outputs=outputs, metadata=dict(tags=[*tags]))


# ---------------------------------------------------------------- slides


@each_chapter
def test_a_deck_has_a_slide_for_each_section(page, tmp_path):
    slides.main([page, "--out", str(tmp_path / "deck.html")])
    deck = (tmp_path / "deck.html").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^## (.+)$", markdown(NBS / f"{page}.ipynb"))
    assert len(headings) > 5 and deck.count("<section>") == 1 + len(headings)
    assert deck.count("<h2>") == len(headings) and deck.count("<h1>") == 1
    assert (tmp_path / "deck.html").stat().st_size < 2**20


@each_chapter
def test_a_deck_asks_no_other_host(page):
    deck = slides.deck(page)
    assert "://" not in deck and not re.search(r"@import|url\(|<link|<iframe", deck)
    for tag, attributes in Tags(deck).tags:
        assert attributes.get("src", "data:").startswith("data:"), tag
        assert "href" not in attributes, tag


@each_chapter
def test_every_picture_of_a_deck_has_alt_text(page):
    pictures = [a for tag, a in Tags(slides.deck(page)).tags if tag == "img"]
    assert all(len(a["alt"]) > 20 for a in pictures)
    cells = json.loads((NBS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    stored = any("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", ()))
    assert pictures or not stored


@each_chapter
def test_a_slide_is_short(page):
    deck = slides.deck(page)
    for made, blocks in zip(deck.split("<section>")[1:], Tags(deck).slides, strict=True):
        lines = sum(math.ceil(len(b) / 90) for b in blocks)
        assert lines <= (7 if "<figure>" in made else 12), made[:80]


def test_cells_with_the_tag_take_the_place_of_the_first_sentences():
    cells = [
        markdown_cell("First words. More."),
        markdown_cell("Chosen words.", "slide"),
        code_cell('#| fig-alt: "the first"\nplot()', "AAAA"),
        code_cell('#| fig-alt: "the \\"chosen\\" one"\nplot()', "BBBB", "slide"),
    ]
    made = slides.slide("Head", cells)
    assert "Chosen words" in made and "First words" not in made
    assert "BBBB" in made and "AAAA" not in made and "&quot;chosen&quot; one" in made
    made = slides.slide("Head", [cells[0], cells[2]])
    assert "First words" in made and "AAAA" in made


def test_two_headings_in_one_cell_are_two_sections():
    cells = [
        markdown_cell("# T\n\n> promise"),
        markdown_cell("a\n\n## One\nb\n\n## Two\nc\n### x\n"),
    ]
    found = slides.sections(cells)
    assert [heading for heading, _ in found] == ["T", "One", "Two"]
    assert found[2][1][0]["source"] == "c\n### x\n"
    assert "promise" in slides.slide(*found[0], 1)


def test_formulas_are_mathml_or_their_tex(monkeypatch):
    equation = markdown_cell(r"So" "\n\n" r"$$x_t < \hat x, \tag{3}$$")
    monkeypatch.setattr(slides, "convert", None)
    made = slides.slide("Head", [equation])
    assert r"<code>x_t &lt; \hat x</code><span>(3)</span>" in made
    monkeypatch.setattr(slides, "convert", lambda tex, display: '<math xmlns="http://a">x</math>')
    assert "<math>x</math>" in slides.slide("Head", [equation])
    monkeypatch.setattr(slides, "convert", lambda tex, display: r"<math>\unknown</math>")
    assert "<code>" in slides.slide("Head", [equation])


def test_text_of_a_page_becomes_html():
    monkey = (
        "See [paths](03_paths.ipynb) [@a; @b]: **bold `x<y`**, *soft* & more ([more](b.ipynb))."
    )
    made = slides.inline(monkey)
    assert made == "See paths: <b>bold <code>x&lt;y</code></b>, <em>soft</em> &amp; more."
    assert slides.first_sentences("One. Two is longer. Three.", 20) == "One. Two is longer."
    assert slides.first_sentences("One sentence that is too long.", 5).endswith("long.")


def test_a_page_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        slides.main(["08_scores"])
    assert "page: got 08_scores, expected a page such as 08_score" in capsys.readouterr().err


# ---------------------------------------------------------------- syllabus, errata


def plans():
    return re.split(r"(?m)^## ", markdown(TEACH / "syllabus.ipynb"))[1:3]


def rows(plan):
    return [r.strip("|").split("|") for r in re.findall(r"(?m)^\| \d.*$", plan)]


@pytest.mark.parametrize("plan", plans(), ids=["four", "twelve"])
def test_a_plan_names_every_lesson_once_and_in_order(plan):
    read = [name for row in rows(plan) for name in re.findall(r"\.\./(\d\d_\w+)\.ipynb", row[1])]
    assert read == LESSONS
    assert [int(row[0]) for row in rows(plan)] == list(range(1, len(rows(plan)) + 1))


@pytest.mark.parametrize("plan", plans(), ids=["four", "twelve"])
def test_an_assignment_exists_and_comes_after_its_chapter(plan):
    seen, named = set(), []
    for _, read, _, hand_in in rows(plan):
        seen |= set(re.findall(r"\.\./\d\d_(\w+)\.ipynb", read))
        for name in re.findall(r"`(\w+)`", hand_in):
            assert name in copies.assignments() and (name in seen or name == "reading")
            named.append(name)
    assert len(named) == len(set(named)) and "reading" in named


def test_twelve_weeks_hand_in_all_assignments():
    named = re.findall(r"`(\w+)` \|$", plans()[1], re.M)
    assert sorted(named) == sorted(copies.assignments())


@pytest.mark.parametrize("name", ["syllabus", "tomorrow"])
def test_links_of_the_kit_resolve(name):
    links = re.findall(r"\]\(([^)#]+)", markdown(TEACH / f"{name}.ipynb"))
    assert links and [link for link in links if not (TEACH / link).is_file()] == []


def test_the_errata_are_counted_and_proved():
    path = NBS / "errata.ipynb"
    counted = [int(k) for k in re.findall(r"\] \| (\d+) \|", markdown(path))]
    papers = re.split(r"(?m)^## ", markdown(path))[1:]
    entries = [len(re.findall(r"(?m)^### ", p)) for p in papers]
    assert counted == entries[: len(counted)] and len(counted) == 5 and sum(entries[5:]) == 0
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    proofs = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"][1:]
    assert all("assert" in proof for proof in proofs)
    for before, cell in zip(cells[2:], cells[3:]):  # a table is followed by its proof
        if "".join(before["source"]).count("| where |"):
            assert cell["cell_type"] == "code"
