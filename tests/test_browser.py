"""The explorers in a real browser: run the notebook in JupyterLab, move a control by keyboard, see the picture change."""

import json
import pathlib

import browser
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
reason = browser.missing()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

# notebook, label of the slider (None: the first), keys pressed on it
EXPLORERS = [
    ("29_explorers.ipynb", "p", ["ArrowRight", "ArrowLeft"]),
    ("explorers/score.ipynb", "q of the world", ["ArrowRight", "ArrowLeft"]),
    ("explorers/bridge.ipynb", None, ["ArrowRight", "ArrowRight"]),
    ("explorers/vector.ipynb", "clean frames", ["ArrowRight", "ArrowRight"]),
    ("explorers/masks.ipynb", None, ["ArrowRight", "ArrowRight"]),
    ("explorers/residual.ipynb", "forecaster", ["ArrowRight", "ArrowRight"]),
    ("explorers/crps.ipynb", "members", ["ArrowRight", "ArrowRight"]),
]


@pytest.fixture(scope="module")
def lab():
    with browser.lab() as open_one:
        yield open_one


@pytest.mark.parametrize("name, control, keys", EXPLORERS, ids=[e[0] for e in EXPLORERS])
def test_explorer_answers_to_the_keyboard(name, control, keys, lab, record_property):
    with lab(ROOT / "nbs" / name) as nb:
        nb.run_all(timeout=300)
        seen = [nb.picture()[0]]
        for key in keys:
            nb.move(control, key)
            seen.append(nb.picture()[0])
        nb.settle(timeout=60)
        nb.assert_clean()
    assert all(a != b for a, b in zip(seen, seen[1:]))
    record_property("answer_ms", [round(1000 * s) for s in nb.timings])  # measured, not asserted
    print(f"{name}: answered in {[round(1000 * s) for s in nb.timings]} ms")


def small(tmp_path, *sources):
    cells = [
        dict(cell_type="code", id=f"c{i}", metadata={}, source=s, execution_count=None, outputs=[])
        for i, s in enumerate(sources)
    ]
    kernel = dict(display_name="python3", language="python", name="python3")
    path = tmp_path / "small.ipynb"
    path.write_text(
        json.dumps(
            dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
        )
    )
    return path


def test_the_harness_can_fail(tmp_path, lab):
    "A dead control, a console error and a failing cell are each seen."
    path = small(
        tmp_path,
        "import ipywidgets as w\nfrom vidiffedu.explore import png\nimport numpy as np",
        "s = w.FloatSlider(description='dead'); p = w.Image(value=png(np.zeros((4, 4)), 8)); p.add_class('vidiffedu-picture')\n"
        "r = w.VBox([s, p]); r.add_class('vidiffedu-explorer'); r",
    )
    with lab(path) as nb:
        nb.run_all(timeout=60)
        with pytest.raises(AssertionError, match="did not change"):
            nb.move("dead", timeout=1.5)
        nb.page.evaluate("() => console.error('42 is wrong')")
        with pytest.raises(AssertionError, match="42 is wrong"):
            nb.assert_clean()
        nb.page.evaluate("""() => { const m = window.jupyterapp.shell.currentWidget.content.model.sharedModel;
            m.getCell(1).setSource('1/0') }""")
        with pytest.raises(AssertionError, match="cell 1: ZeroDivisionError"):
            nb.run_all(timeout=60)
