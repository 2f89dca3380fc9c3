"""The explorers' twins, nbs/twins/NAME.html: what they hold, and what they do in a browser, on a phone and in the dark."""

import base64
import importlib.util
import json
import re
import zlib
from functools import cache
from pathlib import Path

import browser
import pytest

from vidiffedu.explore.twin import same

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "nbs" / "twins"


def load_make():
    spec = importlib.util.spec_from_file_location("make_twins", HERE / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_make()
each = pytest.mark.parametrize("name", make.TWINS)
reason = browser.missing()
in_browser = pytest.mark.skipif(reason is not None, reason=reason or "")


@cache
def packed(name):
    "What a twin holds: {names, sizes, states, strings}."
    text = (HERE / f"{name}.html").read_text(encoding="utf-8")
    data = re.search(r'const packed = "([^"]*)"', text)[1]
    return json.loads(zlib.decompress(base64.b64decode(data)))


@cache
def explorer(name):
    return make.explorer(name)


def place(grid, **values):
    "The state's number: the last control moves fastest."
    at = 0
    for control, choices in grid.items():
        at = at * len(choices) + choices.index(values[control])
    return at


def state(name, at):
    "Picture, caption, result, note of a state."
    data = packed(name)
    return [data["strings"][i] for i in data["states"][at]]


def opening(name):
    "The grid, and the number of the opening state."
    shown, grid = explorer(name)
    now = shown.values()
    near = {n: next(x for x in v if same(x, now[n])) for n, v in grid.items()}
    return grid, place(grid, **near)


# ---------------------------------------------------------------- what they hold


def test_every_twin_has_its_recipe():
    files = {p.stem for p in HERE.glob("*.html")}
    assert files == set(make.TWINS), "run python nbs/twins/make.py"


@each
def test_a_twin_is_small_and_asks_for_nothing(name):
    text = (HERE / f"{name}.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 400_000
    strings = "\n".join(packed(name)["strings"])
    for where in (text, strings):
        outside = re.findall(r"""(?:src|href)=["'](?!data:)[^"']*|https?://|@import|url\(""", where)
        assert not outside, outside[:3]


@each
def test_a_twin_shows_what_its_explorer_shows(name):
    "At the opening state and at both ends of the grid: pictures, words and numbers."
    shown, grid = explorer(name)
    before = shown.values()
    first, last = ({n: v[i] for n, v in grid.items()} for i in (0, -1))
    _, at_first = opening(name)
    ends = [(at_first, before), (place(grid, **first), first), (place(grid, **last), last)]
    try:
        for at, values in ends:
            for n, v in values.items():
                if n in grid:
                    shown.controls[n].value = v
            parts, (picture, caption, result, _) = shown.shown(), state(name, at)
            assert browser.same_picture(parts["picture"], picture), (name, values)
            assert browser.close_numbers(browser.words(parts["caption"]), browser.words(caption))
            assert browser.close_numbers(browser.words(parts["result"]), browser.words(result))
            assert browser.same_picture(parts["result"], result), (name, values)
    finally:
        for n, v in before.items():
            shown.controls[n].value = v


@pytest.mark.parametrize("name", ["bridge", "residual"])
def test_a_twin_ends_as_the_slow_work_ends(name):
    shown, grid = explorer(name)
    _, at = opening(name)
    note = browser.words(state(name, at)[3])
    assert browser.close_numbers(browser.words(shown.finish().note.value), note, 0.1), note


def test_the_comparison_can_fail():
    shown, _ = explorer("crps")
    a, b = (shown.shown(spread=s) for s in (1.0, 0.9))
    assert browser.same_picture(a["picture"], a["picture"])
    assert not browser.same_picture(a["picture"], b["picture"])
    assert not browser.close_numbers("mean 0.80 of 4", "mean 0.90 of 4")
    assert not browser.close_numbers("mean 0.80 of 4", "sum 0.80 of 4")
    assert browser.close_numbers("mean 0.80 of 4", "mean 0.81 of 4")
    p = explorer("filters")[0].shown()["picture"]
    q = explorer("filters")[0].shown(log_sigma=0.2)["picture"]
    assert browser.same_picture(p, p) and not browser.same_picture(p, q)


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        path, arguments = browser.chromium(), ["--no-sandbox", "--disable-dev-shm-usage"]
        opened = play.chromium.launch(executable_path=path, headless=True, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    return browser.axe_core(tmp_path_factory.mktemp("axe"))


def open_twin(chromium, name, width=390, scheme="light"):
    "The twin in a window of its own, from its file; what its console said; what it asked for."
    how = dict(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page, said, asked = chromium.new_context(**how).new_page(), [], []
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    page.goto((HERE / f"{name}.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    return page, said, asked


def shown_now(page):
    return page.inner_html("#picture"), page.inner_text("#caption")


@in_browser
@each
def test_a_twin_answers_to_the_keyboard(name, chromium):
    page, said, asked = open_twin(chromium, name)
    grid, at = opening(name)
    picture, caption = shown_now(page)
    assert browser.same_picture(picture, state(name, at)[0])
    assert browser.words(state(name, at)[2])[:20] not in page.inner_text("#result")

    control = next(n for n in reversed(grid) if page.get_attribute(f"#{n}", "type") == "range")
    label = page.inner_text(f"label[for={control}]")
    slider = page.get_by_role("slider", name=label, exact=True)
    now = int(slider.input_value())
    key, new = ("ArrowRight", now + 1) if now + 1 < len(grid[control]) else ("ArrowLeft", now - 1)
    slider.focus()
    page.keyboard.press(key)
    assert slider.input_value() == str(new)
    values = {n: c[0] for n, c in grid.items()}
    numbers, rest = {}, at
    for n, choices in reversed(grid.items()):
        rest, numbers[n] = divmod(rest, len(choices))
    values = {n: grid[n][i] for n, i in numbers.items()} | {control: grid[control][new]}
    there = place(grid, **values)
    assert page.get_attribute("body", "data-state") == str(there)
    picture, caption = shown_now(page)
    assert browser.same_picture(picture, state(name, there)[0])
    assert caption.split() == browser.words(state(name, there)[1]).split()
    assert page.get_attribute("#caption", "role") == "status"

    page.get_by_label("Your prediction", exact=True).focus()
    page.keyboard.type("a guess")
    page.keyboard.press("Enter")
    wanted = browser.words(state(name, there)[2])
    assert browser.words(page.inner_html("#result")).split() == wanted.split()
    assert page.evaluate("record()") == [dict(prediction="a guess", state=there)]
    assert "a guess" in page.inner_text("#record")
    assert said == [] and all(url.startswith(("file:", "data:")) for url in asked)
    page.context.close()


@in_browser
@each
@pytest.mark.parametrize("width, scheme", [(390, "light"), (390, "dark"), (1280, "light")])
def test_a_twin_is_legible_and_accessible(name, width, scheme, chromium, axe):
    page, said, _ = open_twin(chromium, name, width, scheme)
    page.fill("#guess", "1")
    page.get_by_role("button", name="Show").press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if axe is not None:
        bad = browser.accessibility(page, axe, "main")
        assert not bad, "\n".join(bad)
    assert said == []
    page.context.close()
    if axe is None:
        pytest.skip("axe-core could not be fetched (npm pack axe-core): the rest was checked")


@in_browser
def test_a_drag_moves_the_start_of_the_path(chromium):
    page, _, _ = open_twin(chromium, "field", 1280)
    grid, _ = opening("field")
    plane = page.locator("#picture .drag").bounding_box()
    where = json.loads(page.get_attribute("#picture .drag", "data-drag"))
    (_, left, right), (_, top, low) = where["x"], where["y"]
    x, y = grid["x"][6], grid["y"][1]
    spot = (
        plane["x"] + plane["width"] * (x - left) / (right - left),
        plane["y"] + plane["height"] * (y - top) / (low - top),
    )
    page.mouse.move(*spot)
    page.mouse.down()
    page.mouse.up()
    assert page.get_attribute("body", "data-state") == str(place(grid, sigma=1.0, y=y, x=x))
    assert f"({x:.1f}, {y:.1f})" in page.inner_text("#caption")
    page.context.close()
