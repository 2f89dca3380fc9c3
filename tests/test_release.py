"""What a release needs: one version everywhere, lock files and recipes that satisfy settings.ini, a command that refuses what is not ready."""

import configparser
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
config = configparser.ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = config["DEFAULT"]
WANTED = (SETTINGS["requirements"] + " " + SETTINGS["lab_requirements"]).split()
LOCKS = sorted((ROOT / ".locks").glob("*.txt"))


def pins(path):
    "{name: version} of a lock file."
    lines = [s.split(";")[0].strip() for s in path.read_text(encoding="utf-8").splitlines()]
    return dict(s.split("==") for s in lines if "==" in s and not s.startswith("#"))


@pytest.mark.parametrize("path", LOCKS, ids=[p.stem for p in LOCKS])
def test_a_lock_file_pins_what_settings_ask_for(path):
    from packaging.requirements import Requirement

    pinned = pins(path)
    for text in WANTED:
        need = Requirement(text)
        version = pinned[need.name].split("+")[0]
        assert need.specifier.contains(version), (path.name, text, version)
    assert not {"pytest", "nbdev", "nbgrader"} & set(pinned)  # a learner gets no development tool


def test_there_is_a_lock_file_for_each_machine():
    assert [p.stem for p in LOCKS] == ["linux-cpu", "linux-cuda", "macos", "windows"]
    assert not [n for n in pins(ROOT / ".locks/linux-cpu.txt") if n.startswith("nvidia")]


def test_the_recipes_want_what_settings_want():
    from packaging.requirements import Requirement

    text = (ROOT / ".conda" / "meta.yaml").read_text(encoding="utf-8")
    other = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # conda-forge's names
    for need in map(Requirement, SETTINGS["requirements"].split()):
        listed = re.search(rf"^    - {other.get(need.name, need.name)}\b(.*)$", text, flags=re.M)
        assert listed, need.name
        assert set(listed[1].strip().split(",")) - {""} == {str(s) for s in need.specifier}
    assert ".[lab]" in (ROOT / ".binder" / "requirements.txt").read_text().splitlines()


def test_one_version_everywhere():
    version = SETTINGS["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'version = "{version}"' in (ROOT / ".conda" / "meta.yaml").read_text(encoding="utf-8")
    assert re.search(
        rf"^## {re.escape(version)} \(",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        flags=re.M,
    )


@pytest.fixture
def small(tmp_path):
    "A repository that holds what the release command looks at first."
    if shutil.which("git") is None or shutil.which("bash") is None:
        pytest.skip("git and bash are needed")
    tree = tmp_path / "tree"
    for name in (".ci/release", "settings.ini", "CITATION.cff", ".conda/meta.yaml", "CHANGELOG.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    (tree / "CHANGELOG.md").write_text(f"## {SETTINGS['version']} (unreleased)\n")
    git = lambda *words: subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "all")
    return tree, git


def release(tree):
    run = subprocess.run(
        ["bash", ".ci/release"], cwd=tree, text=True, capture_output=True, timeout=60
    )
    return run.returncode, run.stderr


def test_an_unclean_tree_is_refused(small):
    tree, _ = small
    (tree / "more.txt").write_text("x")
    code, said = release(tree)
    assert code == 1 and "more.txt" in said and "clean tree" in said


def test_a_version_without_a_dated_entry_is_refused(small):
    code, said = release(small[0])
    assert code == 1 and "CHANGELOG.md" in said


def test_a_version_that_was_tagged_is_refused(small):
    tree, git = small
    git("tag", f"v{SETTINGS['version']}")
    code, said = release(tree)
    assert code == 1 and "tagged" in said
