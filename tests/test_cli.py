"""The commands as a user runs them: exit codes, one line on the error stream, nothing overwritten."""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from vidiffedu import cli
from vidiffedu.places import shipped
from vidiffedu.safety import shipped as safety_shipped

ROOT = Path(__file__).resolve().parent.parent
RUN = "import sys; from vidiffedu.cli import main; sys.exit(main())"
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg"}


def command(*args, before="", cwd=None, timeout=300):
    return subprocess.run(
        [sys.executable, "-c", before + RUN, *map(str, args)],
        env=ENV,
        cwd=cwd,
        timeout=timeout,
        text=True,
        capture_output=True,
    )


def one_line(result, code, *words):
    assert result.returncode == code, result
    assert "Traceback" not in result.stderr and result.stderr.count("\n") == 1, result.stderr
    for w in words:
        assert w in result.stderr, result.stderr


def test_version_and_help_need_nothing_heavy():
    "`--help` must answer at once: it may not load torch, numpy or matplotlib."
    code = (
        "import sys\nfrom vidiffedu.cli import main\ntry: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'jupyterlab', 'IPython'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENV, text=True, capture_output=True)
    assert done.returncode == 0 and "demo" in done.stdout and "lab" in done.stdout, done.stderr
    from vidiffedu import __version__

    assert command("--version").stdout.strip() == f"vidiffedu {__version__}"


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("dmeo",),
        ("demo", "--steps", "0"),
        ("demo", "--seconds", "nan"),
        ("demo", "--seconds", "5", "--steps", "5"),
        ("lab", "--port", "x"),
        ("demo", "--clips", "-1"),
        ("demo", "--threads", "100000"),
        ("demo", "--seed", str(2**64 - 1)),
    ],
)
def test_a_wrong_command_line_is_one_line_and_ends_with_2(args):
    name = args[0] if args[:1] in (("demo",), ("lab",)) else "COMMAND: got"
    one_line(command(*args), 2, "vidiffedu", name, "--help says more")


# ---------------------------------------------------------------- the table of commands


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    "Two commands of a module that nobody has imported yet."
    (tmp_path / "plugin_of_a_test.py").write_text(
        "def add_arguments(parser, name):\n"
        "    parser.add_argument('--n', type=int, default=3)\n"
        "def run_command(args, name):\n"
        "    if args.n < 0:\n"
        "        raise ValueError('n: got a negative number, expected more\\nand advice')\n"
        "    print(name, args.n)\n"
        "    return args.n\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = {"twice": ("plugin_of_a_test", "one line"), "gone": ("no_such_module_here", "another")}
    monkeypatch.setattr(cli, "COMMANDS", {**cli.COMMANDS, **rows})
    yield "plugin_of_a_test"
    sys.modules.pop("plugin_of_a_test", None)


def test_a_row_of_the_table_is_a_command(plugin, capsys):
    assert cli.main(["twice", "--n", "5"]) == 5 and capsys.readouterr().out == "twice 5\n"
    assert cli.main(["twice", "--n", "-1"]) == 2
    assert capsys.readouterr().err == "vidiffedu twice: n: got a negative number, expected more\n"
    with pytest.raises(SystemExit) as stop:
        cli.main(["twice", "--n", "x"])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert cli.main(["gone"]) == 2  # its module cannot be imported
    assert "no_such_module_here" in capsys.readouterr().err


def test_help_lists_every_command_and_imports_none(plugin, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and plugin not in sys.modules
    for name, (_, about) in cli.COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(about)}$", out, re.M), f"{name}: one line of help"
    with pytest.raises(SystemExit):
        cli.main(["twise"])
    said = capsys.readouterr().err
    assert f"got 'twise', expected one of {', '.join(cli.COMMANDS)}" in said


def test_every_row_names_a_module_that_is_there():
    for name, (module, about) in cli.COMMANDS.items():
        assert importlib.util.find_spec(module), f"{name}: no module {module}"
        assert about and "\n" not in about and len(about) <= 62, f"{name}: too long for one line"


# ---------------------------------------------------------------- files from anywhere


def pages():
    found = (p.relative_to(ROOT / "nbs") for p in (ROOT / "nbs").rglob("*.ipynb"))
    return sorted(p for p in found if not any(part[0] in "._" for part in p.parts))


def code_of(page):
    cells = json.loads((ROOT / "nbs" / page).read_text(encoding="utf-8"))["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "code"}


SHIPPED = (
    r"(\.\./)+\w|(\.\./)*(studies|checkpoints|films)/|(\.\./)*(run_times\.csv|references\.bib)$"
)


def relative_names(source):
    "Names of the course's files in a cell's code that only the notebook's own folder resolves."
    try:
        tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M))
    except SyntaxError:
        return
    fine, docs = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "").startswith("shipped"):
            fine |= {id(part) for argument in node.args for part in ast.walk(argument)}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):  # folder / "name"
            fine |= {id(part) for part in ast.walk(node.right)}
        if isinstance(node, ast.Expr):  # a docstring
            docs.add(id(node.value))
        if isinstance(node, ast.JoinedStr):  # of an f-string, the beginning counts
            fine |= {id(part) for part in node.values[1:]}
            fine |= {id(part) for part in node.values if id(node) in fine}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in fine | docs and re.match(SHIPPED, node.value):
                yield node.value
        bare = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Path", "open")
        for a in node.args[:1] if bare else ():
            if isinstance(a, ast.Constant) and a.value in ("studies", "checkpoints", "films"):
                yield a.value


def test_no_page_opens_the_courses_files_relative_to_itself():
    bad = {}
    for page in pages():
        if page.name == "27_cli.ipynb":  # speaks of the files of a copied folder
            continue
        for cell, source in code_of(page).items():
            if found := list(relative_names(source)):
                bad[f"{page}, cell {cell}"] = found
    assert not bad, f"name these through `vidiffedu.safety.shipped`: {bad}"


@pytest.mark.parametrize(
    "source, names",
    [
        ('open("studies/a.csv")', ["studies/a.csv"]),
        ('load(f"../checkpoints/{name}.safetensors")', ["../checkpoints/"]),
        ('Path("films")', ["films"]),
        ('sys.path.insert(0, "../studies")', ["../studies"]),
        ('open(shipped("studies/a.csv")); shipped(f"checkpoints/{n}.x")', []),
        ('folder / "studies/a.csv"; f"{folder}/studies/a.csv"', []),
        ('def f():\n    "studies/a.csv is read."', []),
    ],
)
def test_a_relative_name_is_found(source, names):
    assert list(relative_names(source)) == names


def test_a_cell_copied_from_a_lesson_runs_in_a_folder_of_ones_own(tmp_path):
    "Score's weights, its reader of studies and the modules of its studies, in an empty folder."
    cells = code_of(Path("08_score.ipynb"))
    (imports,) = (s for s in cells.values() if "import shipped" in s)
    (reader,) = (s for s in cells.values() if "def rows_of(" in s)
    (leafy,) = (s for s in cells.values() if s.count("leafy = load_weights(") == 1)
    leafy = leafy.partition("clips =")[0]
    studies = next(line for s in cells.values() for line in s.splitlines() if "sys.path" in line)
    code = ["from vidiffedu.score import BlindDenoiser", imports, reader, leafy]
    code += ["assert rows_of('score_ablation')", studies]
    code += ["import score_natural", "assert not __import__('os').listdir('.')"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "pasted.py").write_text("\n".join(code), encoding="utf-8")
    run = [sys.executable, tmp_path / "pasted.py"]
    done = subprocess.run(
        run, env=ENV, cwd=tmp_path / "mine", text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_shipped_names_what_it_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped("studies/gpu.csv") == ROOT / "nbs" / "studies" / "gpu.csv"
    assert shipped is safety_shipped and cli.notebooks_folder() == ROOT / "nbs"
    with pytest.raises(FileNotFoundError) as said:
        shipped("studies/none.csv")
    text = str(said.value)
    assert "\n" not in text and "got studies/none.csv" in text and str(ROOT / "nbs") in text


# ---------------------------------------------------------------- what the commands do


def test_unwritable_folder_is_found_before_training(tmp_path):
    (tmp_path / "file").touch()
    done = command("demo", "--out", tmp_path / "file" / "below")
    one_line(done, 2, "vidiffedu demo", "--out: got", "expected a folder that can be written")
    assert done.stdout == "", "nothing may have begun"


def test_python_m_does_the_same(tmp_path):
    def run(*args):
        line = [sys.executable, "-m", "vidiffedu", *args]
        return subprocess.run(line, env=ENV, cwd=tmp_path, text=True, capture_output=True)

    assert run("--help").stdout == command("--help").stdout
    wrong = run("demo", "--steps", "0")
    assert wrong.returncode == 2 and "--steps: got '0', expected" in wrong.stderr


def changed(path, change):
    "A notebook as a reader's program writes it: other spaces, and what `change` does to it."
    nb = json.loads(path.read_text(encoding="utf-8"))
    change(nb)
    path.write_text(json.dumps(nb, indent=2), encoding="utf-8")


def run_and_saved(nb):
    "What JupyterLab and a kernel change."
    nb["metadata"]["language_info"] = dict(name="python")
    for c in nb["cells"]:
        c["metadata"]["scrolled"] = True
        if c["cell_type"] == "code":
            c["execution_count"], c["outputs"] = 7, []
            c["source"] = "".join(c["source"])  # a text is as good as a list of lines


def with_notes(nb):
    nb["cells"].append(dict(cell_type="markdown", id="mine", metadata={}, source=["my notes"]))


@pytest.fixture
def course(tmp_path):
    "Some of the course's files, and some that are not for learners."
    names = "index.ipynb notation.ipynb 00_start.ipynb explorers/score.ipynb run_times.csv"
    for name in [*names.split(), "checkpoints/score_q70.safetensors", "_quarto.yml", "styles.css"]:
        target = tmp_path / "course" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "nbs" / name, target)
    for name in ("assignments/_sources/a.ipynb", "twins/a.html", "site/after.py", ".hidden/a.py"):
        target = tmp_path / "course" / name
        target.parent.mkdir(parents=True)
        target.write_text("{}")
    return tmp_path / "course"


def test_lab_copies_updates_and_keeps(tmp_path, course, monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(cli, "notebooks_folder", lambda: course)
    mine = tmp_path / "mine"

    def lab():
        assert cli.main(["lab", str(mine), "--copy-only"]) == 0
        return capsys.readouterr().out

    assert "6 copied" in lab()
    found = sorted(p.relative_to(mine).as_posix() for p in mine.rglob("*") if p.is_file())
    assert [n for n in found if n[0] != "."] == sorted(
        "index.ipynb notation.ipynb 00_start.ipynb explorers/score.ipynb run_times.csv "
        "checkpoints/score_q70.safetensors".split()
    )
    for name in found:
        assert name[0] == "." or (mine / name).read_bytes() == (course / name).read_bytes()
    index, notation, start = (mine / f"{n}.ipynb" for n in ("index", "notation", "00_start"))
    changed(index, with_notes)
    changed(notation, run_and_saved)
    changed(start, run_and_saved)
    again = lab()
    assert "5 unchanged, 1 left as you changed them (index.ipynb)" in again
    assert "my notes" in index.read_text() and "scrolled" in start.read_text()
    assert not (mine / "index.new.ipynb").exists(), (
        "the course has no newer version: nothing to put beside"
    )

    for path in (index, notation):  # a newer course; of the one page only a picture is new
        changed(course / path.name, lambda nb: nb["metadata"].update(version="newer"))
    newer = lab()
    assert "1 updated" in newer and "beside them: index.new.ipynb" in newer
    assert notation.read_bytes() == (course / notation.name).read_bytes()  # only run: replaced
    assert "my notes" in index.read_text() and "scrolled" in start.read_text()
    assert (mine / "index.new.ipynb").read_bytes() == (course / "index.ipynb").read_bytes()


def test_lab_copies_the_real_course(tmp_path):
    done = cli.copy_notebooks(cli.notebooks_folder(), tmp_path / "mine")
    assert {"index.ipynb", "explorers/score.ipynb", "run_times.csv"} <= set(done["new"])
    assert {"studies/gpu.csv", "checkpoints/score_q70.safetensors"} <= set(done["new"])
    of_site = (".html", ".yml", ".css", "conftest.py")  # but the frame that slides are put into
    assert [n for n in done["new"] if n.endswith(of_site)] == ["teach/deck.html"]


def test_a_record_of_an_older_version_loses_nothing(tmp_path):
    "It held one fingerprint a file: what differs from the course counts as the reader's."
    course, mine = tmp_path / "course", tmp_path / "mine"
    for folder in (course, mine):
        folder.mkdir()
        (folder / "a.csv").write_text("1")
    cli.copy_notebooks(course, mine)
    (mine / ".vidiffedu-manifest.json").write_text(json.dumps({"a.csv": "0" * 64}))
    (course / "a.csv").write_text("2")
    assert cli.copy_notebooks(course, mine)["kept"] == ["a.csv"]
    assert (mine / "a.csv").read_text() == "1" and (mine / "a.new.csv").read_text() == "2"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"source": 1}]}']
)
def test_what_is_no_notebook_is_compared_byte_by_byte(text, tmp_path):
    file = tmp_path / "a.ipynb"
    file.write_text(text)
    assert cli.written_print(file) == cli.whole_print(file)


def test_what_is_copied_is_signed(tmp_path, monkeypatch):
    "For this user: JupyterLab plays the stored clips of the copies, of no other file."
    nbformat = pytest.importorskip("nbformat")
    from nbformat.sign import NotebookNotary

    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    course = tmp_path / "course"
    course.mkdir()
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    for name in ("a", "b"):
        nbformat.write(nb, course / f"{name}.ipynb")
        nb.cells[0].source = "2"
    monkeypatch.setattr(cli, "notebooks_folder", lambda: course)

    def trusted(name):
        return NotebookNotary().check_signature(nbformat.read(tmp_path / f"mine/{name}.ipynb", 4))

    assert cli.main(["lab", str(tmp_path / "mine"), "--copy-only"]) == 0
    assert trusted("a") and trusted("b")
    nb.cells[0].source = "3"
    nbformat.write(nb, tmp_path / "mine" / "a.ipynb")  # the reader's own: not ours to sign
    nb.cells[0].source = "4"
    nbformat.write(nb, course / "a.ipynb")
    assert cli.main(["lab", str(tmp_path / "mine"), "--copy-only"]) == 0
    assert not trusted("a") and trusted("a.new")


def test_copies_that_cannot_be_signed_are_copied(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nbformat")
    (tmp_path / "a.ipynb").write_text("torn")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    assert cli.sign([tmp_path / "a.ipynb"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("not signed (") and said.count("\n") == 1
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.sign([tmp_path / "a.ipynb"]) == 0 and capsys.readouterr().out == ""


def test_lab_without_jupyterlab_says_so(tmp_path):
    done = command(
        "lab", tmp_path / "mine", before="import sys; sys.modules['jupyterlab'] = None; "
    )
    one_line(done, 2, 'pip install "vidiffedu[lab]"')
    assert not (tmp_path / "mine").exists()


def test_lab_on_a_file(tmp_path):
    (tmp_path / "file").touch()
    one_line(
        command("lab", tmp_path / "file", "--copy-only"), 2, "which is a file, expected a folder"
    )
    one_line(command("lab", tmp_path / "file" / "below", "--copy-only"), 2)


@pytest.mark.skipif(
    importlib.util.find_spec("jupyterlab") is None, reason="jupyterlab is not installed"
)
def test_lab_opens_the_front_page_and_takes_jupyterlab_along(tmp_path):
    "The address that is printed shows `index`; SIGTERM to `vidiffedu lab` ends JupyterLab too."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {
        **ENV,
        **{
            k: str(tmp_path / k)
            for k in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        },
        "JUPYTER_TOKEN": "t",
    }
    log = (tmp_path / "log").open("w")
    line = [sys.executable, "-c", RUN, "lab", "my lessons", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        line, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True
    )
    try:
        names = {f["name"] for f in answer(port, "api/contents", process)["content"]}
        assert {"index.ipynb", "27_cli.ipynb", "48_places.ipynb"} <= names
        assert f"{port}/lab/tree/index.ipynb" in (tmp_path / "log").read_text()
        process.terminate()  # this one process only
        process.wait(30)
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=t", timeout=2)
    finally:
        log.close()
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sig)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        process.wait(10)


def answer(port, path, process, seconds=60):
    "What a server says as soon as it is up."
    stop = time.monotonic() + seconds
    while True:
        try:
            url = f"http://127.0.0.1:{port}/{path}?token=t"
            with urllib.request.urlopen(url, timeout=2) as reply:
                return json.load(reply)
        except OSError:
            assert process.poll() is None and time.monotonic() < stop, "JupyterLab did not start"
            time.sleep(0.2)


def files(folder):
    return {p.name: p.stat().st_size for p in folder.iterdir()}


def test_demo_writes_and_does_not_overwrite(tmp_path):
    "With a screen's backend asked for that does not exist: the demo needs none."
    short = ["demo", "--steps", 2, "--clips", 2, "--samples", 2, "--threads", 1]
    before = "import os; os.environ['MPLBACKEND'] = 'module://no_such_backend'; "
    done = command(*short, before=before, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("95% interval", "truth 0.700", "times closer", "futures.png", "futures.gif"):
        assert word in done.stdout
    first = files(tmp_path / "vidiffedu-demo")
    assert set(first) == {"futures.png", "futures.gif"} and min(first.values()) > 0
    from PIL import Image

    with Image.open(tmp_path / "vidiffedu-demo" / "futures.gif") as gif:
        assert gif.n_frames >= 3
    again = command(*short, cwd=tmp_path)
    assert again.returncode == 0 and "vidiffedu-demo-2" in again.stdout
    assert files(tmp_path / "vidiffedu-demo") == first


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_training_and_keeps_what_was_learned(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            RUN,
            "demo",
            "--steps",
            "100000",
            "--clips",
            "2",
            "--samples",
            "2",
            "--threads",
            "1",
        ],
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            if "loss" in line:
                break  # tqdm ends its lines with carriage returns: text mode reads them as lines
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err[-2000:]
    assert "stopped after" in out and "times closer" in out and "Traceback" not in err
    assert set(files(tmp_path / "vidiffedu-demo")) == {"futures.png", "futures.gif"}
