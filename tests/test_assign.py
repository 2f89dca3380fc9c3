"""Assignments: what is handed out, what it is worth, and what a submission cannot do.

pytest tests/test_assign.py
pytest tests/test_assign.py -k bridge
python tests/test_assign.py bridge         a table: every right and wrong answer of an assignment
python tests/test_assign.py mark bridge    nbgrader's metadata, from the ids of the cells
"""

import argparse
import ast
import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vidiffedu import assign, copies, marking, sandbox

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "nbs/assignments/_sources"
NAMES = sorted(p.stem for p in SOURCES.glob("[!._]*.ipynb"))
each = pytest.mark.parametrize("name", NAMES)


def source(name="score"):
    return copies.source_of(name)


def model(name="score"):
    return copies.solved_copy(source(name), name)


def changed(nb, cells):
    return marking.with_cells(nb, cells)


def without(nb, key):
    return {**nb, "cells": [c for c in nb["cells"] if copies.key(c) != key]}


def save(path, nb):
    path.write_text(copies.notebook_text(nb), encoding="utf-8")
    return path


# ---------------------------------------------------------------- every assignment


def lines(text):
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= 4}


def code_of(nb, key):
    return next(c["source"] for c in nb["cells"] if copies.key(c) == key)


@each
def test_no_solution_line_is_handed_out(name):
    copy = copies.student_copy(source(name), name)
    for cell in source(name)["cells"]:
        key, what = copies.key(cell), copies.kind(cell)
        if what == "solve":
            regions = copies.SOLUTION.findall(cell["source"])
            assert regions, f"{key}: no solution between `# BEGIN SOLUTION` and `# END SOLUTION`"
            held = set().union(*(lines(region[1]) for region in regions))
            left = held & lines(code_of(copy, key))
            assert not left, f"{key}: {left}"
        if what == "ask":
            assert code_of(copy, key) == copies.ANSWER
    text = copies.notebook_text(copy)
    assert not re.search("(BEGIN|END) (SOLUTION|STUB|HIDDEN)", text)
    assert "rubric-" not in text
    assert not any(c.get("outputs") for c in copy["cells"])


@each
def test_no_hidden_check_is_handed_out(name):
    for copy in (copies.student_copy(source(name), name), model(name)):
        for cell in source(name)["cells"]:
            if copies.kind(cell) == "check":
                public, hidden = set(), set()
                into = public
                for line in cell["source"].splitlines():
                    if line.strip() == "# BEGIN HIDDEN TESTS":
                        into = hidden
                    into |= lines(line)
                    into = public if line.strip() == "# END HIDDEN TESTS" else into
                left = (hidden - public) & lines(code_of(copy, copies.key(cell)))
                assert not left, (copies.key(cell), left)


def test_solutions_are_neither_on_the_site_nor_copied_to_readers():
    from nbdev.doclinks import nbglob

    from vidiffedu.cli import lesson_files

    for found in (nbglob(ROOT / "nbs"), lesson_files(ROOT / "nbs")):
        names = [str(path) for path in found]
        assert any(name.endswith("guide.ipynb") for name in names)
        assert not any("_sources" in name for name in names)


@each
def test_the_handed_out_copy_is_python_and_has_what_a_grader_needs(name):
    nb, copy = source(name), copies.student_copy(source(name), name)
    for cell in copy["cells"]:
        if cell["cell_type"] == "code":
            ast.parse(re.sub(r"^\s*[%!].*$", "pass", cell["source"], flags=re.M))
    kinds = [copies.kind(c) for c in nb["cells"]]
    worth = copies.tasks(nb)
    questions = [t for t in worth if t.key.startswith("ask")]
    assert kinds.count("rubric") == len(questions) >= 2
    assert any(copies.key(c).startswith("solve-bug") for c in nb["cells"]), "no bug museum"
    keys = [copies.key(c) for c in nb["cells"]]
    assert len(keys) == len(set(keys))
    assert copy["metadata"]["vidiffedu"]["assignment"] == name


@each
def test_a_question_has_a_title_of_its_own(name):
    worth = [t for t in copies.tasks(source(name)) if t.key.startswith("ask")]
    titles = [t.words for t in worth]
    assert len(set(titles)) == len(titles), titles
    assert not any(words == f"question {t.key[4:]}" for words, t in zip(titles, worth)), titles


@each
def test_an_assignment_is_marked_and_clean(name, tmp_path):
    raw = json.loads((SOURCES / f"{name}.ipynb").read_text(encoding="utf-8"))
    before = [c["metadata"] for c in raw["cells"]]
    after = [c["metadata"] for c in copies.marked(source(name))["cells"]]
    assert before == after, f"run: python tests/test_assign.py mark {name}"
    assert not any(c.get("outputs") for c in raw["cells"]), "a source has no outputs"
    shutil.copy(ROOT / "settings.ini", tmp_path)
    copy = tmp_path / f"{name}.ipynb"
    shutil.copy(SOURCES / copy.name, copy)
    clean = [sys.executable, Path(sys.executable).with_name("nbdev_clean"), "--fname", copy]
    subprocess.run(clean, cwd=tmp_path, check=True, capture_output=True)
    assert copy.read_text() == (SOURCES / copy.name).read_text(), "run nbdev_clean"


@each
def test_right_answers_get_all_and_wrong_ones_are_caught_and_named(name):
    said, worth = assign.answers_of(name), copies.tasks(source(name))
    total = sum(t.points for t in worth if t.key.startswith("check"))
    assert len(said["WRONG"]) >= 8 and said["SUBTLE"] <= set(said["WRONG"]) and said["SUBTLE"]
    assert said["RIGHT"]
    for group, answer, points, lost, seen in assign.rehearse(name):
        if group in ("model", "right"):
            assert points == total and not lost, (answer, lost)
        elif group == "fresh":
            assert points == 0, lost
        else:
            named = said["DIAGNOSIS"].get(answer, re.sub(r" \d+$", "", answer))
            assert points < total and named in lost.values(), (answer, lost)
        if answer in said["SUBTLE"]:
            assert seen == total, f"{answer}: the public checks see it"


# ---------------------------------------------------------------- what cannot be graded


def reordered(nb):
    cells = list(nb["cells"])
    keys = [copies.key(c) for c in cells]
    i, j = keys.index("solve-noisy"), keys.index("solve-score")
    cells[i], cells[j] = cells[j], cells[i]
    return {**nb, "cells": cells}


def renamed(nb):
    nb = json.loads(json.dumps(nb))
    cell = next(c for c in nb["cells"] if copies.key(c) == "check-mean")
    cell["metadata"]["nbgrader"]["grade_id"] = "check-meen"
    return nb


def twice(nb):
    cells = [c for c in nb["cells"] for _ in range(1 + (copies.key(c) == "solve-mean"))]
    return {**nb, "cells": cells}


def about(nb, **said):
    return {**nb, "metadata": {**nb["metadata"], "vidiffedu": nb["metadata"]["vidiffedu"] | said}}


def retyped(nb):
    nb = json.loads(json.dumps(nb))
    next(c for c in nb["cells"] if copies.key(c) == "solve-mean")["cell_type"] = "markdown"
    return nb


BAD = {
    "cells: check-mean is missing": lambda nb: without(nb, "check-mean"),
    "cells: check-mean is missing (there is 'check-meen', which nobody handed out)": renamed,
    "cells: solve-mean is there 2 times": twice,
    "cells: solve-score is at another place": reordered,
    "cells: solve-mean is of another type": retyped,
    "assignment: got 'bridge', expected 'score'": lambda nb: about(nb, assignment="bridge"),
    "assignment: got none of its cells, expected a copy that was handed out": lambda nb: {
        **nb,
        "cells": nb["cells"][:1],
    },
}


@pytest.mark.parametrize("said", BAD)
def test_a_submission_that_cannot_be_graded_is_named(said):
    assert marking.problem_of(BAD[said](model()), copies.student_copy(source(), "score")) == said


def test_an_older_version_is_named_and_another_wording_is_not():
    handed = copies.student_copy(source(), "score")
    old = about(model(), version="abc")
    assert marking.problem_of(old, handed).startswith("version: got 'abc', expected '")
    plain = {**model(), "metadata": {}}  # a platform may drop what it does not know
    assert marking.problem_of(plain, handed) is None
    other = source()
    other["cells"][0]["source"] += "\nmore words"
    assert copies.version_of(other) == copies.version_of(source())
    other["cells"][3]["source"] += "\nmore = 1"
    assert copies.version_of(other) != copies.version_of(source())


@pytest.mark.parametrize(
    "data, said",
    [
        (b"{no", "corrupt"),
        (b"[]", "corrupt"),
        (b'{"cells": [3]}', "corrupt"),
        (b'{"cells": [{"cell_type": "code", "source": "", "metadata": 3}]}', "corrupt"),
        (b'{"cells": [{"cell_type": "jam", "source": ""}]}', "corrupt"),
        ("[" * 100_000, "corrupt"),
        ('{"cells": "ä"}'.encode("latin-1"), "encoding"),
        ('{"cells": []}'.encode("utf-16"), "encoding"),
    ],
)
def test_a_file_that_is_no_notebook_is_named(tmp_path, data, said):
    path = tmp_path / "ada.ipynb"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(ValueError, match=f"^ada.ipynb: got .*{said}"):
        copies.read_notebook(path)


def test_students_are_files_or_folders(tmp_path):
    save(tmp_path / "ada.ipynb", model())
    for folder in ("bob/deep", "carl", "dora", "eve lyn"):
        (tmp_path / folder).mkdir(parents=True)
    save(tmp_path / "bob/deep/score.ipynb", model())
    save(tmp_path / "dora/a.ipynb", model())
    save(tmp_path / "dora/b.ipynb", model())
    save(tmp_path / "eve lyn/score.ipynb", model())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "ada").mkdir()
    save(tmp_path / "ada/score.ipynb", model())
    found = {s: (p.name, why) for s, p, why in marking.submissions(tmp_path)}
    assert found["bob"] == ("score.ipynb", "") and found["eve_lyn"] == ("score.ipynb", "")
    assert found["carl"][1] == "carl: got 0 notebooks, expected one"
    assert found["dora"][1] == "dora: got 2 notebooks, expected one"
    assert "another kind" in found["notes"][1]
    assert sorted(k for k in found if k.startswith("ada")) == ["ada", "ada.again"]
    assert found["ada.again"][1] == "student: got ada twice"


# ---------------------------------------------------------------- what gains nothing

OVERRIDE = """
import builtins, sys, unittest.mock
import torch
import vidiffedu.assign, vidiffedu.marking as a

class Same(float):
    __eq__ = __ge__ = __le__ = __lt__ = __gt__ = lambda *_: True

a.check = a.compare = a._near = lambda *_, **__: None
torch.allclose = torch.testing.assert_close = lambda *_, **__: True
builtins.isinstance = lambda *_: True
builtins.AssertionError = type("Calm", (Exception,), {})
Finding = a.Finding = a.check
check = compare = kept = lambda *_, **__: True
"""
EVIL = {
    "overrides the checks": OVERRIDE + "def noisy(x, noise, level, lens):\n    return x",
    "answers with an object that equals all": OVERRIDE + "def noisy(*_):\n    return Same(1.0)",
    "reads the source": "from pathlib import Path\n"
    f"text = Path({str(SOURCES / 'score.ipynb')!r}).read_text()\nexec(text)",
    "asks the library for it": "from vidiffedu import copies\n"
    "nb = copies.solved_copy(copies.source_of('score'), 'score')\n"
    "exec(next(c['source'] for c in nb['cells'] if c['id'] == 'solve-noisy'))",
    "looks for the check on the stack": "import sys\ndef noisy(x, noise, level, lens):\n"
    "    f = sys._getframe()\n    while f:\n        if '_wrong' in f.f_globals: return 1 / 0\n"
    "        f = f.f_back\n    return x",
    "prints without end": "while True:\n    print('x' * 999)",
    "takes all memory": "import torch\nkeep = torch.empty(2**33)",
    "ends its process": "import os\nos._exit(0)",
    "does not end": "while True:\n    pass",
    "is a coroutine of its own": "def noisy(*_):\n    while True:\n        pass",
}


SAID = {
    "prints without end": "printed, or wrote into a file, more than 1 MB",
    "takes all memory": "can't allocate memory",
    "reads the source": "may not be read here",
    "does not end": "took more than 3 s",
    "ends its process": "its process ended",
}


@pytest.mark.parametrize("what", EVIL)
def test_an_unfriendly_cell_gains_nothing_and_harms_nothing(what):
    full = {t.key: t.points for t in copies.tasks(source())}
    paper = changed(model(), {"solve-noisy": EVIL[what], "check-noisy": "pass"})
    found = marking.mark_code(paper, source(), seconds=3, closed=[str(SOURCES)])
    assert found["check-noisy"].points == 0, found["check-noisy"]
    assert SAID.get(what, "") in found["check-noisy"].words
    for key in ("check-mean", "check-score", "check-descend", "check-bug"):
        assert found[key].points == full[key], (key, found[key])


def test_what_a_student_does_to_given_cells_and_checks_does_not_matter():
    paper = changed(
        model(),
        {"given-imports": "import torch", "check-mean": "raise SystemExit", "check-bug": ""},
    )
    found = marking.mark_code(paper, source())
    assert all(v.points for k, v in found.items() if k.startswith("check"))


def test_cells_of_ones_own_run_and_play_cells_do_not():
    cells = list(model()["cells"])
    at = [copies.key(c) for c in cells].index("solve-noisy")
    own = dict(cell_type="code", id="x", metadata={}, source="def helper(s):\n    return s + 0.0")
    cells.insert(at, own)
    nb = changed({**model(), "cells": cells}, {"play-count": "noisy = None"})
    text = code_of(nb, "solve-noisy").replace("level.view", "helper(level).view")
    found = marking.mark_code(changed(nb, {"solve-noisy": text}), source())
    assert all(v.points for k, v in found.items() if k.startswith("check"))


def test_fifty_megabytes_of_output_are_dropped(tmp_path):
    nb = model()
    cell = next(c for c in nb["cells"] if copies.key(c) == "solve-noisy")
    cell["outputs"] = [dict(output_type="stream", name="stdout", text=["x" * 99 + "\n"] * 500_000)]
    path = save(tmp_path / "ada.ipynb", nb)
    paper = marking.grade_file("ada", path, "", "score", source(), {})
    assert not paper.problem and "MB, its outputs were dropped" in paper.remark
    assert sum(v.points or 0 for v in paper.verdicts.values()) == 21


# ---------------------------------------------------------------- a class


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    "Six submissions, graded by the command: (folder of submissions, what was written)."
    pytest.importorskip("nbgrader")
    folder = tmp_path_factory.mktemp("class")
    wrong = assign.answers_of("score")["WRONG"]
    save(folder / "ada.ipynb", model())
    save(folder / "bob.ipynb", changed(model(), wrong["wrong axis"]))
    save(folder / "carl.ipynb", changed(model(), wrong["graph kept"]))
    save(folder / "dora.ipynb", copies.student_copy(source(), "score"))
    save(folder / "eve.ipynb", without(model(), "solve-mean"))
    (folder / "finn.ipynb").write_text("{no")
    out = folder.parent / "graded"
    assert command("grade", "score", folder, "--out", out, "--jobs", 1) == 0
    return folder, out


def command(*words):
    parser = argparse.ArgumentParser()
    assign.add_arguments(parser, "assign")
    return assign.run_command(parser.parse_args([*map(str, words)]), "assign")


def table(out):
    rows = list(csv.DictReader((out / "scores.csv").read_text(encoding="utf-8").splitlines()))
    return {(r["student"], r["task"]): r for r in rows}


def test_the_table_has_one_row_a_student_and_task(graded):
    rows, worth = table(graded[1]), copies.tasks(source())
    assert len(rows) == 6 * len(worth)
    assert all(rows["ada", t.key]["score"] == f"{t.points}" for t in worth if t.key[:3] != "ask")
    assert rows["ada", "ask-lens"]["status"] == "to be marked"
    assert rows["bob", "check-noisy"]["score"] == "0"
    assert rows["bob", "check-noisy"]["diagnosis"] == "wrong axis"
    assert rows["carl", "check-descend"]["diagnosis"] == "graph kept"
    assert {rows["dora", t.key]["score"] for t in worth} == {"0"}
    assert rows["eve", "check-noisy"]["status"] == "not graded"
    assert rows["eve", "check-noisy"]["remark"] == "cells: solve-mean is missing"
    assert rows["finn", "ask-bug"]["score"] == ""


def test_the_report_counts_the_faults(graded):
    text = (graded[1] / "report.txt").read_text(encoding="utf-8")
    assert text.startswith("score: 4 graded, 2 not\n")
    assert "check-noisy: 2 of 4 failed: wrong axis (1), not done (1)" in text.replace(
        "not done (1), wrong axis (1)", "wrong axis (1), not done (1)"
    )
    assert "finn (finn.ipynb): finn.ipynb: got a corrupt file, expected a notebook" in text
    assert "eve (eve.ipynb): cells: solve-mean is missing" in text


def test_feedback_shows_no_hidden_check(graded):
    pages = sorted((graded[1] / "feedback").glob("*.html"))
    assert [p.stem for p in pages] == ["ada", "bob", "carl", "dora", "eve", "finn"]
    text = "\n".join(p.read_text(encoding="utf-8") for p in pages)
    for cell in source()["cells"]:
        for hidden in copies.HIDDEN.findall(cell["source"]):
            held = {line for line in lines(hidden[1]) if len(line) > 24 and "_" in line}
            assert not any(line in text for line in held if not line.startswith('"'))
    assert "each belongs to a clip" in (graded[1] / "feedback/bob.html").read_text()
    assert "18 of 29 points" not in text and "21 of 29 points" in text


def test_feedback_says_what_was_seen_in_every_row(graded):
    page = (graded[1] / "feedback/ada.html").read_text(encoding="utf-8")
    assert page.count("all checks passed") == sum(
        t.key.startswith("check") for t in copies.tasks(source())
    )
    assert "Bug museum: Question 3" in page and "<td></td>" not in page
    fresh = (graded[1] / "feedback/dora.html").read_text(encoding="utf-8")
    assert "all checks passed" not in fresh


def test_the_course_folder_has_no_hidden_check(graded):
    course = graded[1] / "course"
    assert (course / "gradebook.db").is_file()
    found = list(course.rglob("*.ipynb"))
    assert any("autograded" in p.parts for p in found)
    assert not any("HIDDEN TESTS" in p.read_text(encoding="utf-8") for p in found)
    assert b"HIDDEN TESTS" not in (course / "gradebook.db").read_bytes()


def test_answers_marked_by_hand_reach_the_feedback(graded, tmp_path):
    folder = tmp_path / "graded"
    folder.mkdir()
    text = (graded[1] / "scores.csv").read_text(encoding="utf-8")
    text = text.replace(
        "ada,score,ask-lens,3,,to be marked,,", "ada,score,ask-lens,3,2.5,to be marked,,"
    )
    text = text.replace("2.5,to be marked,,", "2.5,to be marked,,Well seen <b>")
    (folder / "scores.csv").write_text(text, encoding="utf-8")
    assert command("feedback", folder, "--out", tmp_path / "pages") == 0
    page = (tmp_path / "pages/ada.html").read_text(encoding="utf-8")
    assert "23.5 of 29 points" in page and "Well seen &lt;b&gt;" in page
    (folder / "scores.csv").write_text(text.replace(",2.5,", ",4,"), encoding="utf-8")
    with pytest.raises(ValueError, match="got score '4', expected a number from 0 to 3"):
        command("feedback", folder, "--out", tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_nothing_is_written_over(graded, tmp_path):
    before = {p: p.read_bytes() for p in graded[1].rglob("*") if p.is_file()}
    for words in (
        ("grade", "score", graded[0], "--out", graded[1]),
        ("release", "score", "--out", graded[1]),
        ("feedback", graded[1], "--out", graded[1]),
    ):
        with pytest.raises(FileExistsError, match="expected a new folder"):
            command(*words)
    assert before == {p: p.read_bytes() for p in graded[1].rglob("*") if p.is_file()}


def test_copies_are_written(tmp_path, capsys):
    assert command("release", "score", "--out", tmp_path / "a") == 0
    assert command("solutions", "score", "--out", tmp_path / "b") == 0
    assert command("solutions", "score", "--hidden", "--out", tmp_path / "c") == 0
    handed, solved, all_of_it = (
        copies.read_notebook(tmp_path / folder / "score.ipynb") for folder in "abc"
    )
    assert "raise NotImplementedError()" in code_of(handed, "solve-noisy")
    assert "lens * noise" in code_of(solved, "solve-noisy")
    assert "HIDDEN TESTS" not in copies.notebook_text(solved)
    assert "HIDDEN TESTS" in copies.notebook_text(
        all_of_it
    ) and "1 point: " in copies.notebook_text(all_of_it)
    with pytest.raises(ValueError, match="assignment: got 'skore', expected one of "):
        command("release", "skore", "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ("grade", "score", "nowhere", "--out", "x"),
            "submissions: got nowhere, expected a folder",
        ),
        (("grade", "score", ".", "--out", "x", "--jobs", "0"), "--jobs: got 0"),
        (("grade", "score", ".", "--out", "x", "--seconds", "-1"), "--seconds: got -1.0"),
        (("release", "--sources", "nowhere", "--out", "x"), "sources: got no assignment in"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=re.escape(said)) as caught:
        command(*words)
    assert "\n" not in str(caught.value) and not Path("x").exists()


# ---------------------------------------------------------------- checks


def test_compare_names_the_fault():
    x = torch.arange(4.0)
    wrong = {"sign": (-x, "turned round")}

    def said(found, expected=x):
        error = marking.fails(marking.compare, found, expected, "x", wrong)
        return error and error.diagnosis

    assert said(x) is None and said(x.double() + 1e-7) is None
    assert said(-x) == "sign" and said(2 * x) == "differs" and said(x[:3]) == "shape"
    assert said(None) == said("1") == said([0.0, 1.0, 2.0, 3.0]) == "type"
    assert said(x / 0) == "not finite" and said(1.0) == "type"
    assert said(3.0, 3.0) is None and said(torch.tensor(3.0), 3.0) is None and said(3, 4.0)
    assert said(torch.tensor([3.0]), 3.0) == "shape"


@pytest.mark.parametrize("expected", [2.0, torch.tensor([1.0, -1e3])])
def test_compare_bears_rounding_and_nothing_more(expected):
    for off, fine in ((5e-5, True), (1e-3, False)):
        error = marking.fails(marking.compare, expected * (1 + off), expected, "x")
        assert (error is None) == fine, off


def test_a_name_has_one_number_however_it_is_written():
    import zlib

    want = zlib.crc32(b"ada lovelace") % 1000
    for name in ("ada lovelace", "Ada Lovelace", "  ADA\tlovelace\n"):
        assert marking.number_of(name) == want
    numbers = {marking.number_of(f"student {k}", 7) for k in range(200)}
    assert numbers == set(range(7))


def test_an_answer_that_was_not_written_gets_nothing():
    "The words that were handed out, or none; others wait for a reader."
    asks = [c for c in copies.student_copy(source(), "score")["cells"] if copies.kind(c) == "ask"]
    assert asks[0]["source"] == copies.ANSWER
    for text, want in ((copies.ANSWER, 0), (f"\n{copies.ANSWER} ", 0), ("", 0), ("Because.", None)):
        found = marking.mark_code(dict(cells=[asks[0] | dict(source=text)]), source())
        assert [v.points for v in found.values()] == [want], text


def test_markers_come_in_pairs():
    for text in ("# BEGIN SOLUTION\nx = 1", "x = 1\n# END SOLUTION", "# BEGIN STUB\n# END STUB"):
        with pytest.raises(ValueError, match="expected a pair"):
            copies.unsolved(text)
    with pytest.raises(ValueError, match="expected a pair"):
        copies.public("# BEGIN HIDDEN TESTS\nassert 1")
    text = "def f():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION"
    stub = text + "\n    # BEGIN STUB\n    # if 1:\n    #     return 2\n    # END STUB\ny = 1"
    assert copies.unsolved(text) == (
        "def f():\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    )
    assert copies.unsolved(stub) == "def f():\n    if 1:\n        return 2\ny = 1"
    assert copies.solved(stub) == "def f():\n    return 1\ny = 1"


def test_a_spreadsheet_computes_nothing():
    row = dict.fromkeys(assign.COLUMNS, "") | dict(remark="=1+1", student="@ada")
    assert "'=1+1" in assign.table_text([row]) and "'@ada" in assign.table_text([row])


def test_a_room_is_clean_and_leaves_nothing():
    with sandbox.Room(seconds=5) as room:
        room.run("a", "import os, sys\nhere = os.getcwd()\nnames = sorted(globals())")
        folder = Path(room.get("here"))
        assert folder.is_dir() and "check" not in room.get("names")
        room.run("b", "open('note.txt', 'w').write('x')")
    assert not folder.exists()
    with sandbox.Room(seconds=5) as room, pytest.raises(NameError):
        room.get("here")


def test_a_reply_is_never_unpickled():
    "What the room names is data; a pickle or a function of the checker's cannot come from there."
    for said in (
        {"thing": ["pickle", "gASVAA=="]},
        {"thing": ["mine", 0]},
        {"tensor": ["jam", [1], 0]},
    ):
        head = json.dumps({"list": ["value", said]}).encode()
        data = len(head).to_bytes(4, "little") + head
        with pytest.raises((ValueError, KeyError, TypeError)):
            sandbox.unpack(data, lambda inner: sandbox.Room.received(None, inner))
            raise SystemError("it was read")


def main():
    if sys.argv[1] != "mark":
        return command("try", sys.argv[1])
    for name in sys.argv[2:]:
        nb = copies.marked(source(name))
        for cell in nb["cells"]:
            cell["source"] = cell["source"].splitlines(True)
        text = json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        (SOURCES / f"{name}.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
