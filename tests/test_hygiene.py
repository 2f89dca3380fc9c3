"The library's modules and their notebooks: each imports alone, is exported, is clean, and says each name once."

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyflakes.api import check
from pyflakes.reporter import Reporter

ROOT = Path(__file__).resolve().parents[1]
modules = sorted(p for p in (ROOT / "vidiffedu").glob("*.py") if not p.name.startswith("_"))
notebooks = sorted(
    p
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts)
)
LIGHT = ["core", "paths", "times", "denoise", "sample"]  # usable with torch, numpy and einops alone
each_module = pytest.mark.parametrize("path", modules, ids=lambda p: p.stem)
each_notebook = pytest.mark.parametrize(
    "path", notebooks, ids=lambda p: str(p.relative_to(ROOT / "nbs"))
)


def import_alone(name, only=None):
    args = [name] + (["--only", ",".join(only)] if only else [])
    done = subprocess.run(
        [sys.executable, ROOT / "tests/imports_alone.py", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"import {name}: {done.stderr.strip().splitlines()[-1]}"
    return json.loads(done.stdout.splitlines()[-1])


def cells(path, kind="code"):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


# ---------------------------------------------------------------- modules


def test_the_package_imports_only_its_version():
    seen = import_alone("vidiffedu")
    assert "torch" not in seen["loaded"] and "numpy" not in seen["loaded"], seen["loaded"]
    assert not seen["asked"]
    assert Path(seen["file"]) == ROOT / "vidiffedu/__init__.py"


@each_module
def test_a_module_imports_alone(path):
    only = ["torch", "numpy", "einops"] if path.stem in LIGHT else None
    seen = import_alone(f"vidiffedu.{path.stem}", only)
    assert not seen["asked"], f"importing asked for the network: {seen['asked']}"
    assert not seen["missing"], f"named in __all__ but not there: {seen['missing']}"
    dev = {
        "nbdev",
        "fastcore",
        "execnb",
        "pytest",
        "jupyterlab",
        "nbgrader",
        "playwright",
        "hypothesis",
    } & set(seen["loaded"])
    assert not dev, f"development tools come along: {dev}"


class Findings(Reporter):
    def __init__(self):
        self.lines = []

    def unexpectedError(self, filename, msg):
        self.lines.append(str(msg))

    def syntaxError(self, filename, msg, lineno, offset, text):
        self.lines.append(f"{filename}:{lineno}: {msg}")

    def flake(self, message):
        self.lines.append(str(message))


@each_module
def test_no_undefined_names(path):
    found = Findings()
    check(path.read_text(), str(path.relative_to(ROOT)), found)
    fine = ["imported but unused", "f-string is missing"]
    if path.stem in ("explore", "data"):
        fine.append(
            "redefinition of unused"
        )  # several notebooks write them, each with the imports it needs
    unwanted = [line for line in found.lines if not any(text in line for text in fine)]
    assert not unwanted, "\n".join(unwanted)


@each_module
def test_no_unused_import(path):
    found = Findings()
    check(path.read_text(), str(path.relative_to(ROOT)), found)
    unused = [line for line in found.lines if "imported but unused" in line]
    assert not unused, "\n".join(unused)


def exported(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(
            getattr(t, "id", "") == "__all__" for t in node.targets
        ):
            return ast.literal_eval(node.value)
    return []


def test_no_name_is_exported_twice():
    owner, twice = {}, []
    for path in modules:
        for name in exported(path):
            if name in owner:
                twice.append(f"{name}: {owner[name]} and {path.stem}")
            owner[name] = path.stem
    assert not twice, twice
    shadow = set(owner) & {p.stem for p in modules} - {
        name for name, module in owner.items() if name == module
    }
    assert not shadow, f"a name exported elsewhere hides a module: {shadow}"


@each_module
def test_no_name_is_defined_twice_in_a_module(path):
    seen, twice = set(), []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if node.name in seen:
                twice.append(f"{node.name}, line {node.lineno}")
            seen.add(node.name)
    assert not twice, twice


# ---------------------------------------------------------------- notebooks


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "What nbdev reads, in a folder of its own."
    root = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "settings.ini", root)
    for folder in ("nbs", "vidiffedu"):
        shutil.copytree(
            ROOT / folder,
            root / folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    return root


def nbdev(command, root):
    script = Path(sys.executable).with_name(f"nbdev_{command}")
    return subprocess.run([sys.executable, script], cwd=root, capture_output=True, text=True)


def test_the_library_is_what_the_notebooks_export(copy):
    root = copy.parent / (copy.name + "-export")
    shutil.copytree(copy, root, symlinks=True)
    for path in (root / "vidiffedu").glob("*.py"):
        if path.name != "__init__.py":
            path.unlink()
    done = nbdev("export", root)
    assert done.returncode == 0, done.stderr[-2000:]
    fresh, here = (
        {p.name: p.read_text() for p in (base / "vidiffedu").glob("*.py")} for base in (root, ROOT)
    )
    differ = sorted(
        name for name in fresh.keys() | here.keys() if fresh.get(name) != here.get(name)
    )
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
    text = json.loads(path.read_text())
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
