"""Install vidiffedu. All settings stand in settings.ini; this file only hands them to setuptools."""

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

root = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(root / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
kinds = {
    ".ipynb",
    ".csv",
    ".json",
    ".py",
    ".bib",
    ".safetensors",
    ".mkv",
    ".md",
    ".qmd",
    ".css",
    ".html",
}

beside = [
    "settings.ini",
    "_quarto.yml",
    ".pytest.ini",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    ".ruff.toml",
    "nbs/conftest.py",
    "tests/**/*.py",
]


def notebook_files(nbs):
    "The lessons and what lies beside them, relative to `nbs`: nothing hidden, generated or linked."
    for path in sorted(nbs.rglob("*")):
        rel = path.relative_to(nbs)
        parts = [part for part in rel.parts if part != "_sources"]  # of the assignments
        skip = any(part.startswith((".", "_")) for part in parts) or rel.name == "conftest.py"
        if path.is_file() and not path.is_symlink() and path.suffix in kinds and not skip:
            yield rel


class BuildWithNotebooks(build_py):
    "Put nbs/ into the wheel as vidiffedu/notebooks/, so that the tree holds one copy only."

    def get_source_files(self):  # and what stands outside vidiffedu/ into the sdist
        lessons = [Path(cfg["nbs_path"]) / rel for rel in notebook_files(root / cfg["nbs_path"])]
        others = [
            path.relative_to(root) for pattern in beside for path in sorted(root.glob(pattern))
        ]
        return super().get_source_files() + [str(path) for path in lessons + others]

    def run(self):
        target = Path(self.build_lib) / cfg["lib_name"]
        if not self.editable_mode:
            shutil.rmtree(target, ignore_errors=True)  # no leftovers of an older build
        super().run()
        if self.editable_mode:
            return  # the code then reads nbs/ itself
        for rel in notebook_files(root / cfg["nbs_path"]):
            to = target / "notebooks" / rel
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / cfg["nbs_path"] / rel, to)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    python_requires=">=" + cfg["min_python"],
    package_data={cfg["lib_name"]: ["py.typed"]},
    packages=find_packages(include=[cfg["lib_name"], cfg["lib_name"] + ".*"]),
    install_requires=cfg["requirements"].split(),
    extras_require={"lab": cfg["lab_requirements"].split(), "dev": cfg["dev_requirements"].split()},
    entry_points={"console_scripts": [cfg["console_scripts"]]},
    cmdclass={"build_py": BuildWithNotebooks},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
