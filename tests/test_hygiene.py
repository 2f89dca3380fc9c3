"The library's modules and their notebooks: each imports alone, is exported, is clean, and says each name once."

import ast
import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIB = ROOT / "vidiffedu"
LIGHT = ["core", "paths", "times", "denoise", "sample"]  # usable with torch, numpy, einops alone
DEV = {
    "nbdev",
    "fastcore",
    "execnb",
    "pytest",
    "jupyterlab",
    "nbgrader",
    "playwright",
    "hypothesis",
}


def module_name(path):
    "vidiffedu/explore/score.py -> explore.score, vidiffedu/explore/__init__.py -> explore"
    parts = path.relative_to(LIB).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


modules = {
    module_name(p): p
    for p in sorted(LIB.rglob("*.py"))
    if p.parent != LIB or not p.name.startswith("_")
}
notebooks = sorted(
    p
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts)
)
each_module = pytest.mark.parametrize("name", modules)
each_notebook = pytest.mark.parametrize(
    "path", notebooks, ids=lambda p: str(p.relative_to(ROOT / "nbs"))
)


def cells(path, kind="code"):
    text = path.read_text(encoding="utf-8")
    return [c for c in json.loads(text)["cells"] if c["cell_type"] == kind]


# ---------------------------------------------------------------- modules


def imports_alone(*whats):
    script = [sys.executable, ROOT / "tests/imports_alone.py", *whats]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def alone():
    "What came along with each module, each imported in a process of its own."
    only = ":torch,numpy,einops"
    whats = {n: f"vidiffedu.{n}{only if n in LIGHT else ''}" for n in modules}
    seen = imports_alone(*whats.values())
    return {n: seen[what] for n, what in whats.items()}


def test_the_package_imports_only_its_version():
    seen = imports_alone("vidiffedu")["vidiffedu"]
    assert seen["loaded"] == ["vidiffedu"], seen["loaded"]
    assert not seen["asked"]
    assert Path(seen["file"]) == LIB / "__init__.py"


@each_module
def test_a_module_imports_alone(name, alone):
    seen = alone[name]
    assert "error" not in seen, f"import vidiffedu.{name}: {seen['error']}"
    assert Path(seen["file"]) == modules[name]
    assert not seen["asked"], f"importing asked for the network: {seen['asked']}"
    assert not seen["missing"], f"named in __all__ but not there: {seen['missing']}"
    assert not DEV & set(seen["loaded"]), "development tools come along"


def ruff(*words):
    command = [sys.executable, "-m", "ruff", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_no_undefined_name_and_no_unused_import_in_the_modules():
    "Their notebooks are checked cell by cell, which cannot see what a module imports for nothing."
    done = ruff(
        "check", "--isolated", "--select=F", "--ignore=F541", "--output-format=concise", LIB
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_has_nothing_to_say():
    done = ruff("check", "--output-format=concise", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_would_format_nothing():
    done = ruff("format", "--check", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def exported(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            getattr(t, "id", "") == "__all__" for t in node.targets
        ):
            return ast.literal_eval(node.value)
    return []


PROTOCOL = {"add_arguments", "run_command"}  # of every module that has commands


def test_no_name_is_exported_twice():
    owner, twice = {}, []
    for module, path in modules.items():
        for name in set(exported(path)) - PROTOCOL:
            if name in owner:
                twice.append(f"{name}: {owner[name]} and {module}")
            owner[name] = module
    assert not twice, twice
    hides = [f"{name} of {m}" for name, m in owner.items() if name in modules and name != m]
    assert not hides, f"a name exported elsewhere hides a module: {hides}"


@each_module
def test_no_name_is_defined_twice_in_a_module(name):
    seen, twice = set(), []
    for node in ast.parse(modules[name].read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if node.name in seen:
                twice.append(f"{node.name}, line {node.lineno}")
            seen.add(node.name)
    assert not twice, twice


# ---------------------------------------------------------------- solutions


@each_notebook
def test_a_solution_is_folded_with_its_outputs(path):
    "In Lab as on the site: what an exercise asks for is not shown below the question."
    folded = dict(outputs_hidden=True, source_hidden=True)
    for c in cells(path):
        meta, source = c["metadata"], "".join(c["source"])
        called = re.search(r'^#\|\s*code-summary:\s*"?Solution', source, re.M)
        if called or "solution" in meta.get("tags", []):
            assert meta.get("jupyter") == folded and "solution" in meta.get("tags", []), c["id"]
            assert re.search(r"^#\|\s*code-fold:\s*true", source, re.M), c["id"]


# ---------------------------------------------------------------- names that moved


def moved_names(path):
    "{name: the module where it is now} of a module that says `__getattr__ = moved(__name__, ...)`."
    known = {"moved": lambda module, **where: where, "__name__": ""}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, said = node.targets[0].id, compile(ast.Expression(node.value), path, "eval")
        if name == "__getattr__":
            return eval(said, known)
        with contextlib.suppress(Exception):  # a list of names, say, that the line uses
            known[name] = eval(said, {})
    return {}


moves = [
    (module, old, new) for module, path in modules.items() for old, new in moved_names(path).items()
]


@pytest.mark.parametrize("module, name, now", moves, ids=[f"{m}.{n}" for m, n, _ in moves])
def test_a_moved_name_says_where_it_went(module, name, now):
    "One line that names the new place, and the name is there; or the old module uses the new name."
    home, new = (now, name) if now in modules else now.rpartition(".")[::2]  # renamed too
    assert home in modules, f"there is no module {home or new}"
    there = getattr(importlib.import_module(f"vidiffedu.{home}"), new)
    left = importlib.import_module(f"vidiffedu.{module}")
    if name in vars(left):
        assert vars(left)[name] is there
        return
    with pytest.raises(ImportError) as caught:
        getattr(left, name)
    assert str(caught.value) == f"{name}: moved from vidiffedu.{module} to vidiffedu.{now}"


def test_any_other_name_is_an_ordinary_error():
    for module in {m for m, _, _ in moves}:
        with pytest.raises(AttributeError, match="no_such_name"):
            importlib.import_module(f"vidiffedu.{module}").no_such_name


# ---------------------------------------------------------------- notebooks


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "What nbdev reads, in a folder of its own."
    root = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "settings.ini", root)
    leave = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.safetensors")
    for folder in ("nbs", "vidiffedu"):
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=leave)
    return root


def nbdev(command, root):
    script = Path(sys.executable).with_name(f"nbdev_{command}")
    return subprocess.run([sys.executable, script], cwd=root, capture_output=True, text=True)


def python_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.py")}


def test_the_library_is_what_the_notebooks_export(copy):
    root = copy.parent / (copy.name + "-export")
    shutil.copytree(copy, root, symlinks=True)
    for path in (root / "vidiffedu").rglob("*.py"):
        if path != root / "vidiffedu/__init__.py":
            path.unlink()
    done = nbdev("export", root)
    assert done.returncode == 0, done.stderr[-2000:]
    fresh, here = python_files(root / "vidiffedu"), python_files(LIB)
    names = sorted(fresh.keys() | here.keys())
    differ = [name for name in names if fresh.get(name) != here.get(name)]
    assert not differ, f"run nbdev_export: {differ} are not what the notebooks export"


def test_the_notebooks_are_clean(copy):
    before = {p: p.read_text() for p in (copy / "nbs").rglob("*.ipynb")}
    done = nbdev("clean", copy)
    assert done.returncode == 0, done.stderr[-2000:]
    dirty = sorted(str(p.relative_to(copy)) for p, text in before.items() if p.read_text() != text)
    assert not dirty, f"run nbdev_clean: {dirty}"


@each_notebook
def test_a_notebook_is_small_and_without_errors(path):
    assert path.stat().st_size < 2**20, f"{path.stat().st_size / 2**20:.2f} MB"
    text = json.loads(path.read_text(encoding="utf-8"))
    errors = [
        o.get("ename") for c in cells(path) for o in c["outputs"] if o["output_type"] == "error"
    ]
    assert not errors, f"stored outputs hold errors: {errors}"
    assert "widgets" not in text["metadata"], "saved widget state breaks execnb: save without it"
    ids = [c["id"] for c in text["cells"]]
    assert len(ids) == len(set(ids)), "two cells share an id"


@each_notebook
def test_a_notebook_opens_with_its_title(path):
    heads = [
        line
        for c in cells(path, "markdown")
        for line in "".join(c["source"]).splitlines()
        if line.startswith("# ")
    ]
    assert heads, "no H1"


@each_notebook
def test_exported_cells_keep_imports_apart(path):
    "proc_nbs runs whole any cell that mixes an import with other code, so an exported one must not."
    mixed = []
    for c in cells(path):
        source = "".join(c["source"])
        if not source.lstrip().startswith(("#| export", "#|export", "#| exports")):
            continue
        kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(source).body}
        if len(kinds) > 1:
            mixed.append(source.splitlines()[:3])
    assert not mixed, mixed
