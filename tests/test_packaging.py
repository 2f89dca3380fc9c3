"What a user installs: the wheel holds the library and the notebooks and nothing else, and imports with no repository near."

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections import namedtuple
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
settings = ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini")
cfg = settings["DEFAULT"]
LEFT_OUT = shutil.ignore_patterns(
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "build",
    "dist",
    "*.egg-info",
    "_proc",
    "_docs",
    "runs",
    "vidiffedu-demo",
    ".ipynb_checkpoints",
    ".pytest_cache",
    ".hypothesis",
    ".quarto",
)


Built = namedtuple("Built", "sdist wheel root modules lessons")


def lessons_of(nbs):
    "The files of nbs/ that a reader gets."
    kinds = {".ipynb", ".csv", ".py", ".bib", ".safetensors", ".mkv", ".html"}
    files = [
        p.relative_to(nbs)
        for p in nbs.rglob("*")
        if p.suffix in kinds and not p.is_symlink() and p.name != "conftest.py"
    ]
    sources = "_sources"  # of the assignments: for teachers, so `vidiffedu lab` leaves them out
    hidden = lambda rel: any(p.startswith((".", "_")) and p != sources for p in rel.parts)
    return {rel.as_posix() for rel in files if not hidden(rel)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The sdist, the wheel, the copy of the tree they were built from and its lessons; traps were laid in that copy."
    root = tmp_path_factory.mktemp("build") / "vidiffedu"
    shutil.copytree(ROOT, root, symlinks=True, ignore=LEFT_OUT)
    library = root / "vidiffedu"
    modules = {p.relative_to(library).as_posix() for p in library.rglob("*.py")}
    lessons = lessons_of(root / "nbs")
    for trap in (
        "nbs/.ipynb_checkpoints/01_core-checkpoint.ipynb",
        "nbs/_proc/01_core.ipynb",
        "_proc/01_core.ipynb",
        "nbs/clip.mp4",
        "vidiffedu/__pycache__/core.cpython-311.pyc",
        "build/lib/vidiffedu/gone.py",
        "build/lib/vidiffedu/notebooks/gone.ipynb",
    ):
        (root / trap).parent.mkdir(parents=True, exist_ok=True)
        (root / trap).write_text("{}")
    (root / "nbs/linked.ipynb").symlink_to("01_core.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", root], capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (sdist,), (wheel,) = (root / "dist").glob("*.tar.gz"), (root / "dist").glob("*.whl")
    return Built(sdist, wheel, root, modules, lessons)


def test_the_wheel_holds_the_modules_and_the_notebooks(built):
    assert {"explore/__init__.py", "explore/score.py", "__main__.py"} <= built.modules
    assert {"explorers/score.ipynb", "48_places.ipynb"} <= built.lessons
    sources = (ROOT / "nbs" / "assignments" / "_sources").glob("*.ipynb")
    assert {f"assignments/_sources/{p.name}" for p in sources} <= built.lessons
    names = {n for n in zipfile.ZipFile(built.wheel).namelist() if ".dist-info/" not in n}
    modules = {f"vidiffedu/{name}" for name in built.modules}
    notebooks = {f"vidiffedu/notebooks/{rel}" for rel in built.lessons}
    assert not (modules | notebooks) - names, f"missing: {sorted((modules | notebooks) - names)}"
    others = {
        n
        for n in names - modules - notebooks - {"vidiffedu/py.typed"}
        if not re.fullmatch(r"vidiffedu/notebooks/[^.]+\.(json|md|qmd|css)", n)
    }
    assert not others, f"not wanted: {sorted(others)}"


def test_an_older_build_leaves_nothing_in_the_wheel(built):
    "`pip install .` builds in the tree, where build/ may hold modules and notebooks that are gone since."
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--wheel",
            "--outdir",
            built.root / "direct",
            built.root,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (direct,) = (built.root / "direct").glob("*.whl")
    assert sorted(zipfile.ZipFile(direct).namelist()) == sorted(
        zipfile.ZipFile(built.wheel).namelist()
    )


def test_a_notebook_in_the_wheel_is_the_one_in_the_tree(built):
    wheel = zipfile.ZipFile(built.wheel)
    for rel in built.lessons:
        assert (
            wheel.read(f"vidiffedu/notebooks/{rel}") == (built.root / "nbs" / rel).read_bytes()
        ), rel


def test_the_wheel_is_small(built):
    assert built.wheel.stat().st_size < 25 * 10**6


CHECKPOINTS = ROOT / "nbs" / "checkpoints"
each_checkpoint = pytest.mark.parametrize(
    "path", sorted(CHECKPOINTS.glob("*.safetensors")), ids=lambda p: p.stem
)


def heads(path):
    "{name: dtype and shape} of a safetensors file, without its tensors."
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return {k: v for k, v in json.loads(file.read(size)).items() if k != "__metadata__"}


def test_the_weights_are_small():
    "Clips that lie beside them are bytes and do not count."
    weights = [
        p
        for p in CHECKPOINTS.glob("*.safetensors")
        if any(v["dtype"].startswith(("F", "BF")) for v in heads(p).values())
    ]
    total = sum(p.stat().st_size for p in weights)
    assert total <= 16 * 10**6, f"{len(weights)} files, {total / 1e6:.1f} MB"


@each_checkpoint
def test_weights_are_stored_in_half_precision(path):
    "What was trained; measured buffers, such as running statistics and scales, are few and exact."
    count = lambda kinds: sum(
        math.prod(v["shape"]) for v in heads(path).values() if v["dtype"] in kinds
    )
    wide = count({"F32", "F64"})
    assert wide <= 0.01 * (wide + count({"F16", "BF16", "U8", "I8"})), "save_weights(dtype=...)"


def test_every_file_of_weights_is_used():
    "By a page or a test: by its name, or by the beginning of a name that is put together."
    texts = [p.read_text(encoding="utf-8") for p in (ROOT / "nbs").rglob("*.ipynb")]
    texts += [p.read_text(encoding="utf-8") for p in (ROOT / "tests").glob("*.py")]
    text = "\n".join(texts)
    made = set(re.findall(r"(\w{4,})\{[^\"\n]*\.safetensors", text))  # f"score_q{q}.safetensors"
    for path in CHECKPOINTS.glob("*.safetensors"):
        known = path.stem in text or path.stem.startswith(tuple(made))
        assert known, f"{path.name}: no page and no test reads it"


def test_the_wheel_names_its_needs(built):
    wheel = zipfile.ZipFile(built.wheel)
    (meta,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
    text = wheel.read(meta).decode()
    needs = [
        line.removeprefix("Requires-Dist: ")
        for line in text.splitlines()
        if line.startswith("Requires-Dist")
    ]
    plain = {re.match(r"[\w-]+", n)[0] for n in needs if "extra ==" not in n}
    assert plain == {re.match(r"[\w-]+", n)[0] for n in cfg["requirements"].split()}
    assert not plain & {
        "nbdev",
        "fastcore",
        "execnb",
        "pytest",
        "jupyterlab",
        "nbgrader",
        "playwright",
    }
    assert {re.match(r"[\w-]+", n)[0] for n in needs if "lab" in n.partition("extra ==")[2]} == {
        "jupyterlab"
    }
    assert (
        f"\nVersion: {cfg['version']}\n" in text
        and "License-Expression: Apache-2.0" in text
        or "License: Apache-2.0" in text
    )
    (points,) = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    assert "vidiffedu = vidiffedu.cli:main" in wheel.read(points).decode().replace(
        "=", " = "
    ).replace("  ", " ")
    assert any(n.endswith("LICENSE") for n in wheel.namelist())


def test_the_version_is_said_once():
    text = (ROOT / "vidiffedu/__init__.py").read_text()
    assert re.search(r'__version__ = "(.+)"', text)[1] == cfg["version"]
    assert f"## {cfg['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_nights_test_what_settings_claim():
    "The nightly workflow's oldest and newest Python and torch are those of settings.ini."
    yaml = pytest.importorskip("yaml")
    text = (ROOT / ".github/workflows/nightly.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    rows = {row["name"]: row for row in job["strategy"]["matrix"]["include"]}
    (torch,) = [r for r in cfg["requirements"].split() if r.startswith("torch")]
    number = lambda row: tuple(map(int, row["python"].split(".")))
    assert rows["oldest"]["python"] == cfg["min_python"]
    assert rows["newest"] == max(rows.values(), key=number)
    assert rows["oldest"]["torch"] == f"torch=={torch.partition('>=')[2].partition(',')[0]}.*"
    below = torch.partition(",")[2]
    assert below.startswith("<") and rows["newest"]["torch"].endswith(below)
    assert all(rows[name]["how"] == "--slow" for name in ("oldest", "newest"))
    assert any("matrix.how" in step.get("run", "") for step in job["steps"])


def test_the_citation_names_this_version():
    yaml = pytest.importorskip("yaml")
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cite["version"] == cfg["version"] and cite["license"] == "Apache-2.0"


def test_the_sdist_holds_what_a_build_needs(built):
    names = {n.partition("/")[2] for n in tarfile.open(built.sdist).getnames()}
    wanted = {
        "settings.ini",
        "setup.py",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CITATION.cff",
        ".pytest.ini",
        "tests/nbcells.py",
        "nbs/conftest.py",
        *(f"nbs/{rel}" for rel in built.lessons),
    }
    assert not wanted - names, f"missing: {sorted(wanted - names)}"
    junk = [
        n
        for n in names
        if re.search(
            r"checkpoints/.*ipynb|_proc|__pycache__|\.pyc|\.mp4|(^|/)\.git/|\.venv|gone", n
        )
    ]
    assert not junk, junk


def test_the_wheel_imports_where_there_is_no_development_tool(built, tmp_path):
    "A fresh environment that sees the wheel and, by links, only what the wheel's own requirements need."
    env = tmp_path / "env"
    venv.create(env, with_pip=False)
    python, (site,) = env / "bin/python", (env / "lib").glob("python*/site-packages")
    for name in needed(cfg["requirements"].split()):
        link(name, site)
    zipfile.ZipFile(built.wheel).extractall(site)
    files = sorted(name for name in built.modules if not name.startswith("_"))
    modules = [name.removesuffix(".py").replace("/", ".") for name in files]
    modules = [name.removesuffix(".__init__") for name in modules]
    code = (
        "import importlib, sys\nimport vidiffedu\n"
        "assert 'site-packages' in vidiffedu.__file__, vidiffedu.__file__\n"
        f"for m in {modules}: importlib.import_module('vidiffedu.' + m)\n"
        "for m in ('nbdev', 'fastcore', 'execnb', 'pytest', 'jupyterlab', 'nbgrader', 'playwright', 'hypothesis'):\n"
        "    try: importlib.import_module(m)\n    except ImportError: continue\n    sys.exit(m + ' is here')\n"
        "from vidiffedu.explore.score import leaf_models\n"
        "assert sorted(leaf_models()) == [0.5, 0.7, 0.9]\n"  # the course's networks came along
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def needed(requirements):
    "The names of the installed distributions that these requirements bring, with all that those bring."
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    found, todo = {}, [Requirement(r) for r in requirements]
    while todo:
        one = todo.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        todo += [Requirement(r) for r in found[name].requires or []]
    return found


def link(name, site):
    "Let the files of an installed distribution be seen from `site`."
    from importlib.metadata import distribution

    dist = distribution(name)
    base = Path(dist.locate_file(""))
    for top in {Path(f).parts[0] for f in dist.files or [] if not f.parts[0].startswith("..")}:
        if top != "__pycache__" and not (site / top).exists():
            (site / top).symlink_to(base / top)
