"""The chapters' questions: their form, their keys computed again, the file of answers, and both kinds of page in a browser."""

import itertools
import json
import math
import re
from pathlib import Path

import browser
import pytest

from vidiffedu import quiz as q
from vidiffedu.core import complaint
from vidiffedu.intervals import student

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
CHAPTERS = q.chapters()
each = pytest.mark.parametrize("chapter", CHAPTERS)
reason = browser.missing()
in_browser = pytest.mark.skipif(reason is not None, reason=reason or "")


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    "A file of answers of this test's own."
    monkeypatch.setenv("VIDIFFEDU_ANSWERS", str(tmp_path / "answers.json"))
    return tmp_path / "answers.json"


def every(chapter):
    return [(w, x) for w in q.WHEN for x in q.questions(chapter, w)]


def raw(chapter):
    return json.loads((NBS / f"quiz/{chapter}.json").read_text(encoding="utf-8"))


def markdown(chapter):
    cells = json.loads((NBS / f"{raw(chapter)['page']}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]


# ---------------------------------------------------------------- the questions


def test_each_method_has_a_quiz():
    assert {"score", "bridge", "vector", "masks", "residual", "crps"} <= set(CHAPTERS)


@each
def test_eight_ideas_are_asked_twice(chapter):
    before, after = (q.questions(chapter, w) for w in q.WHEN[:2])
    assert len(before) == 8 and [x["id"] for x in before] == [x["id"] for x in after]
    assert len({x["question"] for x in before + after}) == 16
    assert len({x["id"] for x in before}) == 8 and 2 <= len(q.questions(chapter, "ask")) <= 3


@each
def test_a_question_is_well_made(chapter):
    for when, x in every(chapter):
        name, right = (chapter, when, x["id"]), x["choices"][x["right"]]
        assert len(set(x["choices"])) == len(x["choices"]) == 4, name
        assert len(set(x["why"])) == 4 and all(w[-1] in ".!" for w in x["why"]), name
        assert len(right) < max(map(len, x["choices"])), f"{name}: the right choice is the longest"
        assert not {"$", "\\", "<"} & set("".join([x["question"], *x["choices"], *x["why"]])), name


@each
def test_the_right_choice_stands_anywhere(chapter):
    for when in q.WHEN[:2]:
        places = [x["right"] for x in q.questions(chapter, when)]
        assert sorted(places) == [0, 0, 1, 1, 2, 2, 3, 3], (when, places)


@each
def test_the_heading_that_teaches_it_exists(chapter):
    found = re.findall(r"^##+ (.+)$", "\n".join(markdown(chapter)), re.M)
    lost = {h for _, x in every(chapter) if not any((h := x["heading"]) in f for f in found)}
    assert not lost, f"quiz/{chapter}.json: {lost}; the page has {found}"


# ---------------------------------------------------------------- the keys, computed again


def share_above(level, k, n=200_000):
    "How often -k log(1 - t) is above a level, for times even in t."
    return sum(-k * math.log(1 - (i + 0.5) / n) > level for i in range(n)) / n


def between(rho):
    "Variance of the middle of three values of a Markov chain, given its neighbours: Schur's complement."
    p = rho * rho  # neighbours correlate with rho, the ends with rho²
    return 1 - 2 * rho * rho * (1 - p) / (1 - p * p)


def known(chances):
    "The mean of {number: probability}."
    return sum(n * p for n, p in chances.items())


def crps(members, x):
    m = len(members)
    apart = sum(abs(a - b) for a in members for b in members) / m**2
    return sum(abs(a - x) for a in members) / m - apart / 2


def excess(m):
    "By which share the plain score of a perfect forecast is too large: pairs of a member with itself."
    pairs = [(i, j) for i in range(m) for j in range(m)]
    return 1 - sum(i != j for i, j in pairs) / len(pairs)


def best_spread(m):
    "The spread with the least plain score for N(0, 1), on a grid."
    score = lambda d: math.sqrt(2 * (1 + d * d) / math.pi) - (1 - 1 / m) * d / math.sqrt(math.pi)
    return min((score(i / 1000), i / 1000) for i in range(1, 2000))[1]


def settled(delta, fine=1e-4, steps=200_000):
    "Variance after many steps that draw all noise anew: u <- estimate + fresh noise."
    v = sigma2 = fine
    for _ in range(steps):
        v = (delta**2 / (delta**2 + sigma2)) ** 2 * v + sigma2
    return v


def walk(delta, guess, sigma, n=20_000):
    "DDIM in fine steps from `guess` off the mean, at noise level sigma: where it ends."
    u, levels = guess, [sigma * (1 - i / n) for i in range(n + 1)]
    for s, t in itertools.pairwise(levels):
        estimate = u * delta**2 / (delta**2 + s * s)
        u = estimate + t / s * (u - estimate)
    return u


def sets(f, most):
    return sum(len(list(itertools.combinations(range(f), n))) for n in range(most + 1))


def coin(p, f, clean=0.05, near=0.2, n=400_000):
    "How often independent times have a clean first frame and the others near each other."
    span = (f - 1) * near ** (f - 2) - (f - 2) * near ** (f - 1)  # the range of f - 1 uniform times
    return p * clean * span


def coins_dispersion(n, p):
    "The variance of the number of heads, over the binomial law's: a sum over the outcomes."
    chance = {k: math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)}
    mean = known(chance)
    return sum(c * (k - mean) ** 2 for k, c in chance.items()) / (n * p * (1 - p))


# (chapter, when, idea): (what the right choice must say, what it is computed from)
KEYS = {
    ("score", "after", "blur"): ("0.6", 0.8 * 1 + 0.2 * -1),
    ("score", "after", "tweedie"): ("−0.5", (1 - 3) / 2**2),
    ("score", "after", "blind"): ("1.1", 100 / math.sqrt(2 * 64 * 64)),
    ("score", "after", "sides"): ("5", 10 / 2),
    ("score", "before", "step"): ("0.9", 1 - 1 * 0.1),
    ("score", "after", "step"): ("0.87", math.sqrt(1 - 0.5**2)),
    ("bridge", "after", "between"): ("0.5", (1 - 0.25) * 1 + 0.25 * -1),
    ("bridge", "after", "noise"): ("0.86", 1 - math.exp(-2)),
    ("bridge", "after", "identity"): ("2.5", (0.1 - 0.8 * -0.5) / (1 - 0.8)),
    ("bridge", "before", "levels"): ("5", 100 * share_above(3, 1)),
    ("bridge", "after", "levels"): ("14", 100 * share_above(1, 0.5)),
    ("bridge", "after", "weight"): ("400", 0.1**-2 / 2**-2),
    ("bridge", "after", "anew"): ("2", settled(2)),
    ("bridge", "after", "start"): ("3", walk(3, 5, 4)),
    ("bridge", "ask", "q3"): ("0.5", walk(1, 1.7, 3.3)),
    ("vector", "after", "coin"): ("700", 1000 * (1 - 0.3)),
    ("vector", "before", "between"): ("0.6", between(0.5)),
    ("vector", "after", "between"): ("0.64", 1 - 0.6**2),
    ("vector", "after", "reverse"): ("0.625", (1 + 0.5**2) / 2),
    ("vector", "ask", "q2"): ("0.22", between(0.8)),
    ("vector", "ask", "q3"): ("11", 1 + 10.05),
    ("masks", "before", "share"): ("1.2", known({0: 0.4, 1: 0.2, 2: 0.2, 3: 0.2})),
    ("masks", "after", "share"): ("0.15", known({0: 0.5, 1: 0.25, 2: 0.25}) / 5),
    ("masks", "ask", "q1"): ("1.875", known(dict.fromkeys((1, 2, 3, 4), 0.75 / 4))),
    ("masks", "before", "sets"): ("31", sets(5, 4)),
    ("masks", "after", "sets"): ("11", sets(4, 2)),
    ("masks", "after", "open"): ("0.6", 0.3 + 0.3),
    ("masks", "after", "spread"): ("0.105", between(0.9)),
    ("residual", "before", "scale"): ("2", (0.5 - 0.3) / 0.1),
    ("residual", "after", "scale"): ("0.4", -0.2 + 0.4 * 1.5),
    ("residual", "after", "root"): ("5", math.sqrt(0.04) / 0.04),
    ("residual", "before", "levels"): ("2", 2 * 1),
    ("crps", "before", "distance"): ("0.5", crps([0.3], 0.8)),
    ("crps", "after", "distance"): ("0.5", crps([0, 2], 1)),
    ("crps", "before", "fair"): ("20", 100 * excess(5)),
    ("crps", "after", "fair"): ("5", 100 * ((1 + excess(10)) / (1 + excess(20)) - 1)),
    ("crps", "after", "rank"): ("10", 100 / 10),
    ("crps", "before", "skill"): ("1.25", 1 + 1 / 4),
    ("compare", "before", "few"): ("4.3", student(3)),
    ("compare", "after", "pooled"): ("1", coins_dispersion(10, 0.7)),
    ("crps", "ask", "q1"): ("0.28", 2 / math.sqrt(math.pi) / 2 / 2),
}


def numbers(text):
    return re.findall(r"−?\d+(?:\.\d+)?", text)


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_a_key_is_what_a_computation_gives(key):
    chapter, when, name = key
    x = next(x for x in q.questions(chapter, when) if x["id"] == name)
    said, value = KEYS[key]
    digits = len(said.partition(".")[2])
    assert round(value, digits) == float(said.replace("−", "-")), value
    right, others = (
        x["choices"][x["right"]],
        [c for c in x["choices"] if c != x["choices"][x["right"]]],
    )
    assert said in numbers(right)
    alike = [c for c in others if (numbers(c) or [""])[0] == said and " times " not in c]
    assert not alike, "a wrong choice begins with the same number"


def test_numbers_in_explanations():
    assert abs(best_spread(2) - 0.38) < 0.005  # crps, lie
    assert abs(best_spread(4) - 3 / math.sqrt(23)) < 0.001
    assert abs(1 / coin(0.2, 6) - 15_000) < 500  # vector, coin
    peak = max((-(1 - i / 1000) * math.log(1 - i / 1000), i / 1000) for i in range(1, 1000))
    assert abs(peak[0] - 0.37) < 0.005 and abs(peak[1] - 0.63) < 0.005  # bridge, noise
    assert share_above(0.69, 1) == pytest.approx(0.5, abs=0.01)


def test_a_wrong_key_would_be_found(monkeypatch):
    key = ("bridge", "after", "start")
    monkeypatch.setitem(KEYS, key, ("4", 4.0))
    with pytest.raises(AssertionError):
        test_a_key_is_what_a_computation_gives(key)


# ---------------------------------------------------------------- the answers


def right_and_wrong(x):
    return x["right"], (x["right"] + 1) % 4


@pytest.mark.parametrize("when", q.WHEN)
def test_answers_are_kept_and_the_first_counts(when, mine):
    x = q.questions("crps", when)[0]
    right, wrong = right_and_wrong(x)
    q.keep("crps", when, x, wrong)
    q.keep("crps", when, x, right)
    (answer,) = json.loads(mine.read_text())["crps"][when].values()
    assert answer["choice"] == wrong and answer["right"] is False
    assert [p.name for p in mine.parent.iterdir()] == ["answers.json"]  # no debris
    q.forget("crps")
    assert q.given("crps", when) == {}


def test_a_quiz_begins_and_ends_with_its_questions():
    one = q.quiz("crps", "before")
    for to, at in ((-1, 0), (3, 3), (7, 7), (8, 7)):
        one.go(to)
        assert one.at == at and one.back.disabled == (at == 0) and one.next.disabled == (at == 7)


def test_two_open_chapters_do_not_overwrite_each_other():
    a, b = q.quiz("crps", "before"), q.quiz("masks", "before")
    for one in (a, b, a):
        one.choose(0)
        one.answer()
        one.go(1)
    assert len(q.given("crps", "before")) == 2 and len(q.given("masks", "before")) == 1


def test_an_answer_belongs_to_its_wording(monkeypatch):
    x = q.questions("crps", "before")[0]
    q.keep("crps", "before", x, x["right"])
    assert x["id"] in q.given("crps", "before")
    monkeypatch.setattr(q, "sum_of", lambda x: "another")
    assert q.given("crps", "before") == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"crps": {"soon": {}}}', '{"crps": {"before": {"a": {}}}}']
)
def test_a_file_that_is_none_is_left_alone(mine, text):
    mine.write_text(text)
    one = q.quiz("crps", "before")
    assert "expected answers as `quiz` keeps them" in one.tally.value
    one.choose(one.now["right"])
    one.answer()
    assert "Right." in one.why.value and "not kept" in one.tally.value
    assert mine.read_text() == text


def test_a_folder_that_cannot_be_written_is_said(mine, monkeypatch):
    monkeypatch.setenv("VIDIFFEDU_ANSWERS", "/proc/none/answers.json")
    one = q.quiz("crps", "before")
    one.choose(0)
    one.answer()
    assert "not kept" in one.tally.value and one.answers


def test_bad_input_is_one_line():
    for made in (
        complaint(q.questions, "curps", "before"),
        complaint(q.questions, "crps", "soon"),
        complaint(q.quiz, "crps", "ask"),
        complaint(q.ask_first, "crps", "q7"),
        complaint(q.read_answers, "/nowhere/at/all.json"),
        complaint(q.changed_interval, 3, 2, 4),
    ):
        assert "got" in made and "expected" in made and "\n" not in made


def test_nothing_is_revealed_before_the_answer():
    one = q.quiz("bridge", "before")
    hidden = one.now["why"]
    shown = lambda: one.text.value + one.why.value + one.tally.value + str(one.buttons)
    assert not any(w in shown() for w in hidden) and "✓" not in shown()
    one.choose(2)
    assert not any(w in shown() for w in hidden) and "✓" not in shown()
    one.answer()
    assert one.check.disabled and "✓" in "".join(b.description for b in one.buttons)


def test_a_terminal_gets_one_line(capsys):
    one = q.quiz("bridge", "before")
    one._ipython_display_()
    line = "quiz bridge, before: 8 questions. Open the chapter in JupyterLab to answer."
    assert capsys.readouterr().out == line + "\n" and repr(one) == line


# ---------------------------------------------------------------- gains


def answers_of(before, after, chapter="bridge"):
    "A file's content: the right ones by number."
    made = {}
    for when, right in (("before", before), ("after", after)):
        x = q.questions(chapter, when)
        made[when] = {y["id"]: dict(right=i in right, sum=q.sum_of(y)) for i, y in enumerate(x)}
    return json.dumps({chapter: made})


def test_a_class_of_four(tmp_path):
    for i, (b, a) in enumerate([([], [0]), ([0], [0, 1]), ([1], [0]), ([], [])]):
        (tmp_path / f"{i}.json").write_text(answers_of(b, a))
    (tmp_path / "bad.json").write_text("{")
    with pytest.warns(UserWarning, match="bad.json"):
        rows = q.class_gain(sorted(tmp_path.glob("*.json")), "bridge")
    first, second, last = rows[0], rows[1], rows[-1]
    assert (first["students"], first["before"], first["after"]) == (4, 0.25, 0.75)
    assert first["gain"] == 0.5 and (second["before"], second["after"]) == (0.25, 0.25)
    d, half = 2 / 6, 1.96 * math.sqrt(2 + 1 - 4 / 6) / 6
    assert first["low"] == pytest.approx(d - half) and first["high"] == pytest.approx(d + half)
    gains = [1 / 8, 1 / 8, 0, 0]
    assert (
        last["gain"] == pytest.approx(sum(gains) / 4) and last["low"] < last["gain"] < last["high"]
    )
    half = 3.18245 * (4 * (1 / 16) ** 2 / 3) ** 0.5 / 4**0.5  # Student's, of four students
    assert last["high"] - last["gain"] == pytest.approx(half, rel=1e-4)
    assert "bridge" not in q.gain_table(rows) and len(q.gain_table(rows).splitlines()) == 10


def test_a_class_of_nobody():
    rows = q.class_gain([], "bridge")
    assert rows[0]["gain"] is None and rows[-1]["gain"] is None and "-" in q.gain_table(rows)


def test_an_interval_turns_round_with_its_sign():
    low, high = q.changed_interval(5, 1, 20)
    assert q.changed_interval(1, 5, 20) == (-high, -low) and low < 4 / 20 < high
    assert q.changed_interval(0, 0, 0) == (-0.98, 0.98)


# ---------------------------------------------------------------- without a kernel


def forms(chapter):
    asks = [q.ask_first(chapter, x["id"]) for x in q.questions(chapter, "ask")]
    return [one.stored() for one in (q.quiz(chapter, "before"), *asks, q.quiz(chapter, "after"))]


@each
def test_a_chapter_stays_small_and_asks_for_nothing(chapter):
    text = "".join(forms(chapter))
    assert len(text.encode()) < 40_000
    assert not re.findall(r"""(?:src|href)=["']|https?://|@import|url\(""", text)


@each
def test_the_stored_forms_are_those_of_today(chapter):
    "Where a chapter has its quizzes, their stored output is what they would show now."
    cells = json.loads((NBS / f"{raw(chapter)['page']}.ipynb").read_text(encoding="utf-8"))["cells"]
    stored = [
        "".join(o["data"].get("text/html", ""))
        for c in cells
        for o in c.get("outputs", [])
        if "data" in o
    ]
    stored = [s for s in stored if "vq-stored" in s]
    if not stored:
        pytest.skip(f"{raw(chapter)['page']} has no quiz yet")
    assert sorted(stored) == sorted(forms(chapter))


def page_of(chapter, scheme):
    shade = "quarto-dark" if scheme == "dark" else ""
    paper = "#222" if scheme == "dark" else "#fff"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{chapter}</title>'
    body = "".join(forms(chapter)).replace(q.quiz_script, "") + q.quiz_script
    return (
        f'{head}<body class="{shade}" style="background:{paper}"><main>{body}</main></body></html>'
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "One JupyterLab, one browser: an open notebook with a quiz, and the file of its answers."
    folder = tmp_path_factory.mktemp("lab")
    source = "from vidiffedu.quiz import quiz\nquiz('bridge', 'before')"
    path, file = notebook(folder / "quiz.ipynb", source), folder / "mine.json"
    with browser.open_notebook(path, env={"VIDIFFEDU_ANSWERS": str(file)}) as nb:
        yield nb, file


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    return browser.axe_core(tmp_path_factory.mktemp("axe"))


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plain_page_on_a_phone(scheme, lab, axe, tmp_path):
    "By keyboard: a choice folds open, the first one counts, and the browser remembers it."
    file = tmp_path / "page.html"
    file.write_text(page_of("bridge", scheme), encoding="utf-8")
    window = lab[0].page.context.browser.new_context(viewport={"width": 390, "height": 700})
    page, said = window.new_page(), []
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    page.goto(file.as_uri())
    first = q.questions("bridge", "before")[0]
    right, wrong = right_and_wrong(first)
    for whole in page.locator(".vq-stored > details > summary").all():
        whole.press("Enter")
    fold = page.locator(".vq-stored").first.locator("ol details")
    assert not fold.nth(wrong).get_by_text("Look again at").is_visible()
    for i in (wrong, right):
        fold.nth(i).locator("summary").focus()
        page.keyboard.press("Enter")
        fold.nth(i).locator("p").wait_for(state="visible")
    assert "Right." in fold.nth(right).inner_text() and "No." in fold.nth(wrong).inner_text()
    status = page.locator(".vq-stored").first.get_by_role("status")
    assert status.inner_text() == "Your first answers: 0 of 1 right (8 questions)."
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    bad = browser.accessibility(page, axe, "main") if axe else []
    assert not bad, "\n".join(bad)
    page.reload()
    page.locator(".vq-stored > details > summary").last.press("Enter")
    assert status.inner_text() == "Your first answers: 0 of 1 right (8 questions)."
    after = page.locator(".vq-stored").last
    after.locator("ol summary").nth(q.questions("bridge", "after")[0]["right"]).press("Enter")
    after.get_by_role("status").filter(has_text="Before the chapter: 0 of 1").wait_for()
    assert said == []
    window.close()


# ---------------------------------------------------------------- with a kernel


def notebook(path, source):
    cell = dict(
        cell_type="code", id="c0", metadata={}, source=source, execution_count=None, outputs=[]
    )
    kernel = dict(display_name="python3", language="python", name="python3")
    path.write_text(
        json.dumps(
            dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
        )
    )
    return path


@in_browser
def test_a_question_is_answered_by_keyboard_in_lab(lab, axe):
    "Run All does not wait; Space chooses and checks; the file has the answer; the page is accessible."
    first = q.questions("bridge", "before")[0]
    right, _ = right_and_wrong(first)
    nb, mine = lab
    nb.run_all(timeout=60)
    root = nb.page.locator(".vidiffedu-quiz")
    root.wait_for()
    assert not nb.page.locator(".vq-stored").is_visible() and not mine.exists()
    button = lambda text: root.get_by_role("button", name=text, exact=True)
    button(first["choices"][right]).focus()
    nb.page.keyboard.press("Space")
    root.get_by_text("You chose:").wait_for()
    assert not mine.exists()
    button("Check").focus()
    nb.page.keyboard.press("Space")
    root.get_by_text(first["why"][right]).wait_for()
    assert root.get_by_text("1 of 1 right, 7 to go.").is_visible()
    (answer,) = json.loads(mine.read_text())["bridge"]["before"].values()
    assert answer["right"] and answer["choice"] == right
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        nb.theme(theme)
        bad = browser.accessibility(nb.page, axe, ".vidiffedu-quiz") if axe else []
        assert not bad, theme + "\n".join(bad)
    box = root.bounding_box()
    assert box["height"] <= 600 and box["width"] <= 950, box
    nb.page.set_viewport_size({"width": 700, "height": 800})
    for i in range(4):
        wide = root.get_by_role("button").nth(i).evaluate("e => e.scrollWidth - e.clientWidth")
        assert wide <= 0
    nb.assert_clean()
