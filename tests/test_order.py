"""The order of the lessons: each page needs only those above it, says so, and keeps to its length.

    pytest tests/test_order.py
    python tests/test_order.py      a table: every page's words, code lines, reading time

How it is counted:

- **A lesson** is a page whose number is below 20; from 20 on a page belongs to the workshop. The
  explorer `explorers/score` belongs to the lesson of its name.
- **Words** are those of all text cells, formulas and tables included, split at white space.
- **Code lines** are neither blank nor directives (`#| ...`); cells marked `#| hide` do not count.
  A cell with `#| code-fold: true` is folded.
- **The reading time** is words / 200 + code lines / 25 minutes. Folds may stay shut or be opened:
  the stated time lies between these two readings, give or take 25 %.
- **A borrow box** is a paragraph that begins `> **Borrowed:**` and names, in backticks, what the
  page takes from a later lesson.
"""

import ast
import json
import re
import statistics
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import run_times  # noqa: E402
from run_times import code_sha, pages, read_rows  # noqa: E402

WORKSHOP = 20  # the first number that is no lesson's
CORE = (1, 2, 3, 4, 5, 6, 7, 9, 10)
WORDS = {0: 3000, **dict.fromkeys(CORE, 1600), 11: 5000}  # any other lesson: CHAPTER
CHAPTER = 4000
INDEX = 700
CELL, MEDIAN = 30, 10  # code lines of a cell: the most outside a fold, the median in the core
SLACK = 0.25
START_MAY = {"data", "player"}  # start takes worlds and players from the library, nothing else

NEEDS = (
    r"\*\*Needs:\*\* (?P<needs>.+?)\. \*\*Reading:\*\* (?P<minutes>\d+) minutes\. "
    r"\*\*Running:\*\* see \[the front page\]\(index\.ipynb\)\."
)
FORM = (
    "**Needs:** [paths](03_paths.ipynb), [times](04_times.ipynb). **Reading:** 20 minutes. "
    "**Running:** see [the front page](index.ipynb)."
)


# ---------------------------------------------------------------- reading


class Cell(NamedTuple):
    number: int
    kind: str
    source: str

    @property
    def directives(self):
        return re.findall(r"^#\|[ \t]*(.+?)[ \t]*$", self.source, re.M)

    @property
    def hidden(self):
        return "hide" in self.directives or any("default_exp" in d for d in self.directives)

    @property
    def folded(self):
        return any(re.fullmatch(r"code-fold:\s*true", d) for d in self.directives)

    @property
    def lines(self):
        lines = [line for line in self.source.splitlines() if line.strip()]
        return sum(not line.lstrip().startswith("#|") for line in lines)


def cells_of(path):
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return [Cell(i, c["cell_type"], "".join(c["source"])) for i, c in enumerate(cells)]


def number(name):
    "03_paths -> 3; explorers/score -> the number of the lesson `score`; any other page -> None."
    name = name.removesuffix(".ipynb")
    if found := re.match(r"(\d\d)_", name):
        return int(found[1])
    if name.startswith("explorers/"):
        return next((n for n, page in LESSONS.items() if page[3:] == name[10:]), None)
    return None


LESSONS = {}
for _path in sorted(NBS.glob("[0-9][0-9]_*.ipynb")):
    if int(_path.name[:2]) < WORKSHOP:
        LESSONS[int(_path.name[:2])] = _path.stem
each_lesson = pytest.mark.parametrize("page", LESSONS.values())


@cache
def modules():
    "{module: the page that exports it}"
    found = {}
    for name, path in pages(NBS).items():
        code = "\n".join(c.source for c in cells_of(NBS / path) if c.kind == "code")
        if default := re.search(r"^#\|\s*default_exp\s+(\S+)", code, re.M):
            found[default[1].removesuffix(".__init__")] = name
    return found


def python(source):
    "The cell as Python, lines of IPython's own passed over; None if it does not parse."
    try:
        return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M))
    except SyntaxError:
        return None


def imports(source, known):
    "(module, name) of what a cell takes from the library; the name is None for a whole module."
    tree = python(source)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            for a in node.names:
                if a.name.startswith("vidiffedu."):
                    yield a.name.removeprefix("vidiffedu."), None
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vidiffedu":
            module = node.module.removeprefix("vidiffedu").lstrip(".")
            for a in node.names:
                inner = ".".join(filter(None, [module, a.name]))
                yield (inner, None) if inner in known else (module, a.name)


def paragraphs(source):
    return re.split(r"\n\s*\n", source)


def borrowed(cells):
    "Every name that a borrow box of the page announces."
    boxes = [
        p
        for c in cells
        if c.kind == "markdown"
        for p in paragraphs(c.source)
        if p.lstrip().startswith("> **Borrowed:**")
    ]
    return set(re.findall(r"`(\w+)`", "\n".join(boxes)))


def needs_line(cells):
    "(the cell under the title, the match of its Needs line or None)"
    title = next((i for i, c in enumerate(cells) if c.kind == "markdown"), None)
    if title is None or title + 1 >= len(cells):
        return None, None
    cell = cells[title + 1]
    lines = cell.source.splitlines() if cell.kind == "markdown" else []
    return cell, next(filter(None, (re.fullmatch(NEEDS, line.strip()) for line in lines)), None)


def linked(text):
    "Pages of the course that a text links to, without `.ipynb`."
    return re.findall(r"\]\(([\w/]+)\.ipynb(?:#[^)\s]*)?\)", text)


def all_needs(page, read):
    "The pages that a page needs, theirs, and so on; `read(page)` gives a page's own."
    found, todo = set(), [page]
    while todo:
        for other in read(todo.pop()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def own_needs(page):
    path = NBS / f"{page}.ipynb"
    _, said = needs_line(cells_of(path)) if path.is_file() else (None, None)
    return linked(said["needs"]) if said else []


def words(cells):
    return sum(len(c.source.split()) for c in cells if c.kind == "markdown")


def code_cells(cells):
    return [c for c in cells if c.kind == "code" and not c.hidden and c.lines]


def reading(cells):
    "(minutes with all folds shut, minutes with all of them open)"
    code = code_cells(cells)
    shut = sum(c.lines for c in code if not c.folded)
    return words(cells) / 200 + shut / 25, words(cells) / 200 + sum(c.lines for c in code) / 25


# ---------------------------------------------------------------- the rules


def import_problems(page, cells, where):
    "`where`: {module: its page}."
    here, boxed = number(page), borrowed(cells)
    for c in cells:
        if c.kind != "code":
            continue
        for module, name in imports(c.source, where):
            owner = where.get(module, "")
            there = number(owner)
            above = there is None or there >= WORKSHOP or there <= here
            if above or (name or module.split(".")[-1]) in boxed:
                continue
            if here == 0 and module in START_MAY:
                continue
            what = f"`{name}` from {owner}" if name else f"the module `{module}` of {owner}"
            yield (
                f"{page}, cell {c.number}: imports {what}, which comes later; name it in a line "
                "`> **Borrowed:** ...`, or do without"
            )


def link_problems(page, cells):
    "Links to later lessons outside borrow boxes, `**Later:**` and the last section."
    here, last = number(page), False
    for c in cells:
        if c.kind != "markdown":
            continue
        for p in paragraphs(c.source):
            if heading := re.match(r"##? (.*)", p.lstrip()):
                last = heading[1].strip().lower() == "where next"
            if last or p.lstrip().startswith(("> **Borrowed:**", "**Later:**")):
                continue
            for target in linked(p):
                there = number(target)
                if there is not None and here < there < WORKSHOP:
                    yield (
                        f"{page}, cell {c.number}: links to the later {target}; only a line "
                        "`**Later:** ...`, a borrow box and `## Where next` may"
                    )


def needs_problems(page, cells, where, read=own_needs):
    cell, said = needs_line(cells)
    if said is None:
        at = f"cell {cell.number}" if cell else "no cell"
        yield f"{page}, {at} under the title: no line of the form\n    {FORM}"
        return
    stated = int(said["minutes"])
    shut, opened = reading(cells)
    if not shut * (1 - SLACK) <= stated <= opened * (1 + SLACK):
        yield (
            f"{page}, cell {cell.number}: says {stated} minutes of reading; words / 200 + code "
            f"lines / 25 is {shut:.0f} with the folds shut, {opened:.0f} with them open"
        )
    here, named = number(page), linked(said["needs"])
    for other in named:
        there = number(other)
        if there is not None and here <= there < WORKSHOP:
            yield f"{page}, cell {cell.number}: needs {other}, which does not stand above it"
    boxed, reached = borrowed(cells), all_needs(page, lambda p: named if p == page else read(p))
    for owner in sorted(lessons_used(page, cells, where, boxed) - reached):
        yield (
            f"{page}, cell {cell.number}: imports from {owner}, but neither its Needs nor those "
            "of the pages it needs name it"
        )


def lessons_used(page, cells, where, boxed):
    "Lessons above that a page imports from, borrowed names apart."
    found = set()
    for c in cells:
        for module, name in imports(c.source, where) if c.kind == "code" else ():
            owner = where.get(module, "")
            there = number(owner)
            if there is None or there >= number(page) or owner not in LESSONS.values():
                continue
            if (name or module.split(".")[-1]) not in boxed:
                found.add(owner)
    return found


def length_problems(page, cells):
    here, count = number(page), words(cells)
    most = WORDS.get(here, CHAPTER)
    if count > most:
        yield f"{page}: {count} words, expected at most {most}"
    shown = [c for c in code_cells(cells) if not c.folded]
    for c in shown:
        if c.lines > CELL and not first_line(c).startswith("def fit("):  # the lesson itself
            yield (
                f"{page}, cell {c.number}: {c.lines} code lines outside a fold, expected at most "
                f"{CELL}; it begins {first_line(c)!r}"
            )
    middle = statistics.median(c.lines for c in shown) if shown else 0
    if here in CORE and middle > MEDIAN:
        yield f"{page}: the median code cell has {middle:g} lines, expected at most {MEDIAN}"


def first_line(cell):
    lines = (line for line in cell.source.splitlines() if not line.startswith("#|"))
    return next((line for line in lines if line.strip()), "")[:60]


def said(problems):
    found = list(problems)
    assert not found, "\n" + "\n".join(found)


def cells_of_page(page):
    return cells_of(NBS / f"{page}.ipynb")


@each_lesson
def test_imports_come_from_above(page):
    said(import_problems(page, cells_of_page(page), modules()))


@each_lesson
def test_links_to_later_lessons_are_marked(page):
    if number(page):  # start may look ahead
        said(link_problems(page, cells_of_page(page)))


@each_lesson
def test_a_lesson_says_what_it_needs(page):
    said(needs_problems(page, cells_of_page(page), modules()))


@each_lesson
def test_a_lesson_keeps_to_its_length(page):
    said(length_problems(page, cells_of_page(page)))


def test_the_front_page_is_short():
    count = words(cells_of_page("index"))
    assert count <= INDEX, f"index: {count} words, expected at most {INDEX}"


# ---------------------------------------------------------------- run times

MEASURE = "run tests/benchmarks/run_times.py, then nbs/index.ipynb"


def time_problems(known, rows):
    "(pages without a row, pages whose code is no longer what was measured)"
    missing = [name for name in known if name not in rows]
    old = [n for n, p in known.items() if n in rows and rows[n]["sha"] != code_sha(NBS / p)]
    return missing, old


def test_every_page_was_measured():
    "A page whose code has changed since is a warning: the front page marks its time."
    missing, old = time_problems(pages(NBS), read_rows(NBS / "run_times.csv"))
    if old:
        warnings.warn(
            f"changed since they were measured ({MEASURE}): {', '.join(old)}", stacklevel=1
        )
    assert not missing, f"no run time of {', '.join(missing)}: {MEASURE}"


def front_page_problems(shown, rows, current):
    "`shown`: {page: its cell of run times}; `current`: {page: whether its code was measured}."
    for name, row in rows.items():
        want = f"{float(row['seconds']):.0f} s" if row["seconds"] else "-"
        got = shown.get(name)
        if got is None:
            yield f"index: {name} is in run_times.csv, but not in the front page's table"
        elif got.removeprefix("≈ ") != want:
            yield f"index: says {got} for {name}, run_times.csv says {want}"
        elif current.get(name, True) == got.startswith("≈"):
            should = "not be marked" if current[name] else "be marked"
            yield f"index: the time of {name} must {should} as older than its code"


def shown_times():
    "The last cell of each row of the front page's tables of run times."
    nb = json.loads((NBS / "index.ipynb").read_text(encoding="utf-8"))
    outputs = [o for c in nb["cells"] for o in c.get("outputs", [])]
    text = "\n".join("".join(o.get("data", {}).get("text/markdown", "")) for o in outputs)
    rows = re.findall(r"^\| ([\w/]+) \|.*\| ([^|]*?) \|$", text, re.M)
    return dict(rows)


def test_the_front_page_shows_the_measured_times():
    known, rows = pages(NBS), read_rows(NBS / "run_times.csv")
    current = {n: rows[n]["sha"] == code_sha(NBS / p) for n, p in known.items() if n in rows}
    found = list(front_page_problems(shown_times(), {n: rows[n] for n in current}, current))
    assert not found, "\n".join(["", *found, "run nbs/index.ipynb again"])


# ---------------------------------------------------------------- the rules can fail

WHERE = {
    "core": "01_core",
    "times": "04_times",
    "train": "10_train",
    "video": "21_video",
    "explore.score": "explorers/score",
}


def page_of(*sources):
    "Cells of an invented page: text begins with `#`, `>`, `*` or a letter; code with `>>>`."
    kinds = ["code" if s.startswith(">>>") else "markdown" for s in sources]
    return [
        Cell(i, k, s.removeprefix(">>>"))
        for i, (k, s) in enumerate(zip(kinds, sources, strict=True))
    ]


def line(needs="[core](01_core.ipynb)", minutes=1):
    return (
        f"**Needs:** {needs}. **Reading:** {minutes} minutes. "
        "**Running:** see [the front page](index.ipynb)."
    )


def test_a_page_that_keeps_the_rules():
    cells = page_of(
        "# 05 denoise\n\n> A promise.",
        line("[times](04_times.ipynb)") + "\n\nA film." + " word" * 180,
        ">>>#| export\nfrom vidiffedu.core import expand\nfrom vidiffedu.times import grid",
        ">>>from vidiffedu.video import VideoFolder",
        "> **Borrowed:** `fit` from [train](10_train.ipynb): trains a network.",
        ">>>from vidiffedu.train import fit",
        "**Later:** [train](10_train.ipynb) opens it.",
        "## Where next\n\n[score](08_score.ipynb)",
    )
    read = lambda p: {"04_times": ["01_core"]}.get(p, [])
    assert not list(import_problems("05_denoise", cells, WHERE))
    assert not list(link_problems("05_denoise", cells))
    assert not list(needs_problems("05_denoise", cells, WHERE, read))
    assert not list(length_problems("05_denoise", cells))


@pytest.mark.parametrize(
    "source",
    [
        "from vidiffedu.train import fit",
        "from vidiffedu import train",
        "import vidiffedu.train as t",
        "def f():\n    from vidiffedu.train import (\n        fit,\n    )",
        "%matplotlib inline\nfrom vidiffedu.train import fit",
        "from vidiffedu.explore.score import leaf_models",
    ],
)
def test_an_import_from_below_is_found(source):
    found = list(import_problems("05_denoise", page_of("# T", f">>>{source}"), WHERE))
    assert len(found) == 1 and "05_denoise, cell 1: imports" in found[0] and "later" in found[0]
    if "fit" in source:  # a box with another name does not help
        box = "> **Borrowed:** `load` from [train](10_train.ipynb): loads."
        assert list(import_problems("05_denoise", page_of(box, f">>>{source}"), WHERE))
    assert not list(import_problems("11_bridge", page_of("# T", f">>>{source}"), WHERE))


def test_start_takes_worlds_only():
    where = {**WHERE, "data": "02_data"}
    assert not list(import_problems("00_start", page_of(">>>import vidiffedu.data"), where))
    assert list(import_problems("00_start", page_of(">>>from vidiffedu.core import seeded"), where))


@pytest.mark.parametrize(
    "text",
    [
        "See [train](10_train.ipynb).",
        "## Where next\n\n[a](10_train.ipynb)\n\n## Exercises\n\n[b](10_train.ipynb)",
        "Not **Later:** [train](10_train.ipynb#steps).",
        "[play](explorers/score.ipynb)",
    ],
)
def test_a_link_ahead_is_found(text):
    found = list(link_problems("05_denoise", page_of("# T", text)))
    assert len(found) == 1 and "05_denoise, cell 1: links to the later" in found[0]
    assert not list(link_problems("15_crps", page_of("# T", text)))


def test_what_is_wrong_with_a_needs_line():
    def problems(*sources, read=lambda p: []):
        return list(needs_problems("05_denoise", page_of("# T", *sources), WHERE, read))

    assert "no line of the form" in problems("**You need:** everything.")[0]
    assert "no line of the form" in problems("A word.", line())[0]  # one cell too low
    assert "no line of the form" in problems(">>>x = 1")[0]
    text = line(minutes=1) + " word" * 20
    assert "no line of the form" in problems(text)[0]  # a line of its own
    few, many = problems(line(minutes=3) + "\n\n" + "word " * 1000), "word " * 1000
    assert len(few) == 1 and "says 3 minutes" in few[0] and "is 5 with" in few[0]
    folded = ">>>#| code-fold: true\n" + "x = 1\n" * 125  # five minutes more, if it is opened
    assert not problems(line(minutes=12) + "\n\n" + many, folded)
    assert problems(line(minutes=14) + "\n\n" + many, folded)
    ahead = problems(line("[train](10_train.ipynb)") + "\n\n" + "word " * 190)
    assert len(ahead) == 1 and "needs 10_train" in ahead[0]
    used = ">>>from vidiffedu.times import grid"
    lacks = problems(line() + "\n\n" + "word " * 190, used)
    assert len(lacks) == 1 and "imports from 04_times" in lacks[0]
    read = lambda p: {"03_paths": ["04_times"]}.get(p, [])  # named by a page that is needed
    assert not problems(line("[a](03_paths.ipynb)") + "\n\n" + "word " * 190, used, read=read)


def test_what_is_too_long():
    lines = lambda n: "x = 1\n\n" * n  # blank lines do not count
    assert not list(length_problems("05_denoise", page_of("word " * 1600, ">>>" + lines(10))))
    long = list(length_problems("05_denoise", page_of("word " * 1601)))
    assert long == ["05_denoise: 1601 words, expected at most 1600"]
    assert not list(length_problems("08_score", page_of("word " * 4000)))
    assert list(length_problems("08_score", page_of("word " * 4001)))
    assert not list(length_problems("08_score", page_of(">>>" + lines(30))))
    found = list(length_problems("08_score", page_of("# T", ">>>#| export\n" + lines(31))))
    assert len(found) == 1 and "08_score, cell 1: 31 code lines outside a fold" in found[0]
    assert not list(length_problems("08_score", page_of(">>>#| code-fold: true\n" + lines(31))))
    found = list(length_problems("05_denoise", page_of(">>>" + lines(11))))
    assert found == ["05_denoise: the median code cell has 11 lines, expected at most 10"]


def test_a_time_that_is_old(tmp_path):
    known = {"01_core": Path("01_core.ipynb"), "index": Path("index.ipynb")}
    sha = code_sha(NBS / "01_core.ipynb")
    assert time_problems(known, {"01_core": dict(sha=sha)}) == (["index"], [])
    rows = {n: dict(sha="0" * 12) for n in known}
    assert time_problems(known, rows) == ([], ["01_core", "index"])
    row = {"a": dict(seconds="12.4")}
    assert not list(front_page_problems({"a": "12 s"}, row, {"a": True}))
    assert not list(front_page_problems({"a": "≈ 12 s"}, row, {"a": False}))
    for shown, current in (({}, True), ({"a": "13 s"}, True), ({"a": "≈ 12 s"}, True)):
        assert len(list(front_page_problems(shown, row, {"a": current}))) == 1
    assert len(list(front_page_problems({"a": "12 s"}, row, {"a": False}))) == 1


def test_the_sum_of_a_page_follows_its_code(tmp_path):
    def sha(code, text="# T", out=()):
        cells = [dict(cell_type="markdown", source=[text]), dict(cell_type="code", source=code)]
        (tmp_path / "a.ipynb").write_text(json.dumps(dict(cells=[*cells], outputs=list(out))))
        return code_sha(tmp_path / "a.ipynb")

    assert sha("x = 1") == sha(["x = ", "1"], "# U", [1]) != sha("x = 2")
    assert re.fullmatch("[0-9a-f]{12}", sha("x = 1"))


def test_a_measurement_goes_on_where_it_stopped(tmp_path, monkeypatch):
    nbs, ran, broken = tmp_path / "nbs", [], {"02_b"}

    def write(name, code):
        cells = [dict(cell_type="code", source=code)]
        (nbs / f"{name}.ipynb").write_text(json.dumps(dict(cells=cells)))

    def run(notebook, threads, timeout):
        ran.append(notebook.stem)
        return (None, None, "it fails") if notebook.stem in broken else (1.5, 100.0, None)

    def measure(*args):
        ran.clear()
        run_times.main([*args, "--out", str(tmp_path / "out.csv")])
        return ran

    nbs.mkdir()
    for name in ("01_a", "02_b", "20_c"):
        write(name, "x = 1")
    monkeypatch.setattr(run_times, "ROOT", tmp_path)
    monkeypatch.setattr(run_times, "run", run)
    with pytest.raises(SystemExit, match="02_b failed"):
        measure()
    assert ran == ["01_a", "02_b", "20_c"]  # the others are measured all the same
    assert set(read_rows(tmp_path / "out.csv")) == {"01_a", "20_c"}
    broken.clear()
    assert measure() == ["02_b"]  # only what is missing
    assert measure() == []
    write("20_c", "x = 2")
    assert measure("--list") == [] and measure() == ["20_c"]  # or has changed
    assert measure("--threads", "1") == ["01_a", "02_b", "20_c"]  # or was measured otherwise
    assert measure("01_a", "--threads", "1") == ["01_a"]
    assert len(measure("--all", "--threads", "1")) == 3
    with pytest.raises(SystemExit):
        measure("03_d")
    (nbs / "02_b.ipynb").unlink()
    assert measure("--threads", "1") == []
    assert set(read_rows(tmp_path / "out.csv")) == {"01_a", "20_c"}  # no row without a page


# ---------------------------------------------------------------- the table


def report():
    rows = read_rows(NBS / "run_times.csv")
    print(f"{'page':16}{'words':>7}{'most':>6}{'lines':>7}{'folded':>8}{'says':>6}{'reads':>9}")
    for page in LESSONS.values():
        cells = cells_of_page(page)
        code, (_, said_) = code_cells(cells), needs_line(cells)
        shut, opened = reading(cells)
        folded = sum(c.lines for c in code if c.folded)
        most = WORDS.get(number(page), CHAPTER)
        print(
            f"{page:16}{words(cells):>7}{most:>6}{sum(c.lines for c in code):>7}{folded:>8}", end=""
        )
        print(f"{said_['minutes'] if said_ else '-':>6}{shut:>6.0f}-{opened:.0f}")
    missing, old = time_problems(pages(NBS), rows)
    print("not measured:", *missing, "\nchanged since they were measured:", *old)


if __name__ == "__main__":
    report()
