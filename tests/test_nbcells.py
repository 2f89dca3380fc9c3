"The collector itself: small notebooks in a folder of their own, run by pytest in a process of its own."

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]


def notebook(*cells):
    "A notebook from strings; what begins with `# ` is a heading."

    def cell(i, text):
        head = dict(id=f"c{i}", metadata={}, source=text.splitlines(True))
        if text.startswith("# "):
            return dict(cell_type="markdown", **head)
        return dict(cell_type="code", execution_count=None, outputs=[], **head)

    return json.dumps(
        dict(
            cells=[cell(*c) for c in enumerate(cells)],
            nbformat=4,
            nbformat_minor=5,
            metadata=dict(
                kernelspec=dict(language="python", name="python3", display_name="python3")
            ),
        )
    )


NOTEBOOKS = {
    "good": [
        "# One",
        "import os\nx = 1",
        "",
        "# Two `b`",
        "#| export\nclass A: pass",
        "assert A.__module__ == '__main__'\nx += 1",
        "assert x == 2 and os.path.basename(os.getcwd()) == 'nbs'",
        "import matplotlib.pyplot as plt\nplt.rcParams['lines.linewidth'] = 7\nplt.plot([1, 2]);",
        "from tqdm.auto import tqdm\nimport ipywidgets as w\nfor i in tqdm(range(2)): pass\nw.IntSlider()",
        "import asyncio\nawait asyncio.sleep(0)",
        "%time 1 + 1",
    ],
    "fails": [
        "# Start",
        "def half(n):\n    return 1 / n",
        "# The bad one",
        "y = 3\nprint('seen')\nhalf(y - 3)\nz = 1",
        "assert True",
    ],
    "asserts": ["q = 2\nassert q == 3"],
    "syntax": ["a = 1\nb = = 2"],
    "flags": [
        "#| eval: false\nraise ValueError",
        "#| slow\nslow = 1/0",
        "assert 'slow' not in globals()",
    ],
    "trains": ["import os\nassert os.environ['VIDIFFEDU_FAST'] == '1'"],
    "off": ["# Off\n\n- skip_exec: true", "1/0"],
    "network": [
        "import socket\ntry: socket.create_connection(('example.org', 80), timeout=1)\nexcept OSError: pass"
    ],
    "address": ["import socket\nsocket.socket().connect(('192.0.2.1', 80))"],
    "local": [
        "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
        "socket.create_connection(s.getsockname()).close()\na, b = socket.socketpair()"
    ],
    "writes": ["open('left_behind.txt', 'w').close()"],
    "shows": ["class R:\n    def _repr_html_(self): return 1/0\nR()"],
    "draws": ["import matplotlib.pyplot as plt\nplt.title('$\\\\frac{$')\nNone"],
    "resets": [
        "import matplotlib.pyplot as plt\nassert plt.rcParams['lines.linewidth'] != 7",
        "assert 'x' not in globals()",
    ],
    "_hidden": ["1/0"],
    ".ipynb_checkpoints/good": ["1/0"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    for name in (".pytest.ini", "nbs/conftest.py", "tests/nbcells.py"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for stem, cells in NOTEBOOKS.items():
        path = root / "nbs" / f"{stem}.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_text(notebook(*cells))
    return root


def run(root, *args, **more):
    "({'good: cell 1 · One': (outcome, text)}, what pytest printed)"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "VIDIFFEDU_"))}
    env = {**kept, **more}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--junitxml",
            "out.xml",
            "-q",
            "-p",
            "no:cacheprovider",
            *args,
        ],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
    )
    cases = {}
    for case in ElementTree.parse(root / "out.xml").iter("testcase"):
        name = (
            case.get("classname").split(".")[-2 if "ipynb" in case.get("classname") else -1]
            + ": "
            + case.get("name").split("::")[-1]
        )
        kind = next((c for c in case if c.tag in ("failure", "error", "skipped")), None)
        cases[name] = (
            (None, "") if kind is None else (kind.tag, f"{kind.get('message')}\n{kind.text}")
        )
    (root / "nbs" / "left_behind.txt").unlink(missing_ok=True)
    return cases, done.stdout + done.stderr


@pytest.fixture(scope="module")
def everything(project):
    return run(project)


def test_names_numbers_and_headings(everything):
    names = [n for n in everything[0] if n.startswith("good")]
    assert names[:3] == ["good: cell 1 · One", "good: cell 2 · Two b", "good: cell 3 · Two b"]
    assert len(names) == 8, "the empty cell has no number, as in Lab"
    assert not any("hidden" in n or "checkpoints" in n for n in everything[0])


def test_a_good_notebook_passes(everything):
    bad = {
        n: r
        for n, r in everything[0].items()
        if n.split(":")[0] in ("good", "local", "resets") and r[0]
    }
    assert not bad, bad


def test_a_failure_shows_its_source_and_line(everything):
    cases, text = everything
    outcome, report = cases["fails: cell 2 · The bad one"]
    assert outcome == "failure"
    assert (
        "nbs/fails.ipynb, cell 2: ZeroDivisionError: division by zero" in report
        and "--->   3 half(y - 3)" in report
        and "       4 z = 1" in report
    )
    assert (
        "in cell 1 line 2: return 1 / n" in report
        and "ZeroDivisionError: division by zero" in report
    )
    assert "seen" in text, "what the cell printed is part of the report"
    assert "IPython" not in report
    assert cases["fails: cell 3 · The bad one"][0] == "skipped"
    assert "an earlier cell failed: cell 2" in cases["fails: cell 3 · The bad one"][1]


def test_an_assertion_shows_its_values(everything):
    report = everything[0]["asserts: cell 1 · top"][1]
    assert "--->   2 assert q == 3" in report and "where q = 2" in report


def test_a_syntax_error_has_its_line(everything):
    assert "--->   2 b = = 2" in everything[0]["syntax: cell 1 · top"][1]


def test_flags(everything, project):
    cases = everything[0]
    assert (
        "eval: false" in cases["flags: cell 1 · top"][1]
        and "slow: runs with --slow" in cases["flags: cell 2 · top"][1]
    )
    assert cases["flags: cell 3 · top"][0] is None
    assert "skip_exec: true" in cases["off: cell 1 · Off"][1]
    slow = run(project, "--slow", "nbs/flags.ipynb")[0]
    assert (
        slow["flags: cell 1 · top"][0] == "skipped" and slow["flags: cell 2 · top"][0] == "failure"
    )


def test_trainings_are_short_unless_asked_for(everything, project):
    "--slow and the environment each ask for the whole training."
    name = "trains: cell 1 · top"
    assert everything[0][name][0] is None
    assert run(project, "--slow", "nbs/trains.ipynb")[0][name][0] == "failure"
    own = dict(VIDIFFEDU_FAST="0")
    assert run(project, "nbs/trains.ipynb", **own)[0][name][0] == "failure"


def test_the_network_is_refused_even_where_the_refusal_is_swallowed(everything):
    assert "it asked for example.org" in everything[0]["network: cell 1 · top"][1]
    assert "it asked for 192.0.2.1" in everything[0]["address: cell 1 · top"][1]


def test_a_file_left_behind_is_an_error(everything):
    assert "running writes.ipynb changed the repository: nbs/left_behind.txt" in everything[1]


@pytest.mark.parametrize("name", ["shows", "draws"])
def test_an_output_that_cannot_be_shown_fails_its_cell(everything, name):
    assert everything[0][f"{name}: cell 1 · top"][0] == "failure"


def test_a_selected_cell_runs_the_cells_before_it(project):
    cases, _ = run(project, "nbs/good.ipynb::cell 4 · Two b")
    assert cases == {"good: cell 4 · Two b": (None, "")}
    cases, _ = run(project, "nbs/fails.ipynb", "-k", "cell and 3")
    outcome, report = cases["fails: cell 3 · The bad one"]
    assert outcome == "failure" and "cell 2 (which cell 3 needs)" in report


def test_workers_keep_a_notebook_together(project):
    if not pytest.importorskip("xdist"):
        return
    cases, text = run(
        project, "-n", "2", "--durations=1", "nbs/good.ipynb", "nbs/resets.ipynb", "nbs/local.ipynb"
    )
    assert len(cases) == 11 and all(outcome is None for outcome, _ in cases.values()), text
    assert "s  nbs/good.ipynb" in text


def test_a_broken_file_is_named(project, tmp_path):
    shutil.copytree(project, tmp_path / "p")
    (tmp_path / "p/nbs/good.ipynb").write_text("{")
    assert "good.ipynb: not a notebook" in run(tmp_path / "p", "nbs/good.ipynb")[1]
