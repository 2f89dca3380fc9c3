"""Tests from cells: a pytest plugin that collects every code cell of a notebook as one test.

    pytest                                                 every notebook, then tests/
    pytest nbs/03_paths.ipynb                              one notebook
    pytest "nbs/03_paths.ipynb::cell 7 · The bridge"       one cell, after the cells before it
    pytest --slow                                          every training in full, and the cells marked `#| slow`

Without --slow the environment says VIDIFFEDU_FAST=1, if it says nothing about it yet: chapters then take a
few steps of their training and load the weights that come with the course. A notebook runs in one shell inside pytest's process, in its own folder, as a fresh kernel would run it.
`n` in `cell n` is the number that Lab shows beside the cell after "run all". Cells marked `#| eval: false`
are skipped. A cell also fails when an output cannot be drawn, when a thread or a library quietly asked for the
network, and (at the notebook's end) when the run has changed the files of the repository.
"""

import ast
import gc
import json
import linecache
import os
import re
import reprlib
import socket
import sys
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    text = "train for real (VIDIFFEDU_FAST=0), and run the cells marked `#| slow` too"
    parser.addoption("--slow", action="store_true", help=text)


def pytest_configure(config):
    "Short trainings unless --slow; one notebook stays on one worker; the workers share the cores."
    os.environ.setdefault("VIDIFFEDU_FAST", "0" if config.getoption("--slow") else "1")
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadfile"
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0))
    if workers:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


def pytest_collect_file(file_path, parent):
    if file_path.suffix != ".ipynb" or not file_path.is_relative_to(ROOT):
        return
    if any(part.startswith((".", "_")) for part in file_path.relative_to(ROOT).parts):
        return
    return Notebook.from_parent(parent, path=file_path)


def pytest_terminal_summary(terminalreporter, config):
    "With --durations: the seconds of each notebook as well."
    if config.getoption("durations") is None:
        return
    seconds = Counter()
    for report in (
        r for kind in ("passed", "failed", "error") for r in terminalreporter.getreports(kind)
    ):
        file = report.nodeid.partition("::")[0]
        if file.endswith(".ipynb"):
            seconds[file] += report.duration
    if seconds:
        terminalreporter.section(f"notebooks: {sum(seconds.values()):.0f} s")
    for file, took in seconds.most_common():
        terminalreporter.line(f"{took:7.1f} s  {file}")


# ---------------------------------------------------------------- reading


def directives(source):
    "The `#| key: value` lines that a cell begins with, as a dict."
    found = {}
    for line in source.splitlines():
        if not line.strip():
            continue
        if not line.lstrip().startswith(("#", "%%")):
            break
        if m := re.match(r"\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*)", line):
            found[m[1]] = m[2].strip()
    return found


def code_cells(nb):
    "(number, nearest heading, source, directives) of every code cell that is not empty."
    number, heading, fenced = 0, "top", False
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for line in source.splitlines():
                if line.lstrip().startswith("```"):
                    fenced = not fenced
                elif not fenced and (m := re.match(r"#{1,6}\s+(.+)", line)):
                    heading = (
                        re.sub(r"\s*\{[#.][^}]*\}\s*$|[`*]", "", m[1]).replace("::", ":").strip()
                    )
            fenced = False
        elif cell["cell_type"] == "code" and source.strip():
            number += 1
            yield number, heading, source, directives(source)


class Notebook(pytest.File):
    "One notebook: the shell that its cells share, and what has run so far."

    def collect(self):
        try:
            nb = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as e:
            raise self.CollectError(f"{self.path.name}: not a notebook, {e}") from None
        if nb.get("metadata", {}).get("kernelspec", {}).get("language", "python") != "python":
            return
        self.sources, self.done, self.shell = {}, {}, None
        opening = ["".join(c["source"]) for c in nb["cells"][:2] if c["cell_type"] != "code"]
        self.off = any(
            re.search(r"^[\s-]*skip_exec:\s*true", text, re.M | re.I) for text in opening
        )  # nbdev's front matter
        for number, heading, source, flags in code_cells(nb):
            self.sources[number] = (source, flags)
            item = Cell.from_parent(
                self, name=f"cell {number} · {heading[:60].strip()}", number=number
            )
            if why := self.why_not(flags):
                item.add_marker(pytest.mark.skip(reason=why))
            yield item

    def why_not(self, flags):
        if self.off:
            return "skip_exec: true"
        if flags.get("eval", "").lower() == "false":
            return "eval: false"
        if "slow" in flags and not self.config.getoption("--slow"):
            return "slow: runs with --slow"

    def setup(self):
        self.before, self.done = listing(), {}

    def teardown(self):
        if self.shell is None:
            return
        self.shell.close()
        self.shell = None
        changed = sorted(dict(listing() ^ self.before))
        if changed:
            pytest.fail(
                f"running {self.path.name} changed the repository: {', '.join(changed)}",
                pytrace=False,
            )

    def run_until(self, number):
        "Run what stands before cell `number` and has not run yet, then the cell itself; its output."
        if self.shell is None:
            self.shell = Shell(self.path)
        for n in sorted(self.sources):
            if n > number:
                break
            source, flags = self.sources[n]
            if n in self.done or self.why_not(flags):
                continue
            self.done[n], output = self.shell.run_source(source)
            if self.done[n] is not None:
                raise CellError(self, n, self.done[n], output)

    def failed(self):
        return next((n for n, error in self.done.items() if error is not None), None)


class Cell(pytest.Item):
    def __init__(self, *, number, **kw):
        super().__init__(**kw)
        self.number = number

    def runtest(self):
        if (n := self.parent.failed()) is not None and n != self.number:
            pytest.skip(f"an earlier cell failed: cell {n}")
        try:
            self.parent.run_until(self.number)
        except CellError as e:
            for kind, text in e.output.items():
                if text.strip():
                    self.add_report_section("call", kind, text)
            raise

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, CellError):
            return excinfo.value.report(self.number)
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, 0, f"{self.path.relative_to(ROOT)}::{self.name}"


# ---------------------------------------------------------------- showing a failure


class CellError(Exception):
    "Cell `number` of `notebook` raised `error`."

    def __init__(self, notebook, number, error, output):
        super().__init__(f"{notebook.path.name}, cell {number}: {type(error).__name__}: {error}")
        self.notebook, self.number, self.error, self.output = notebook, number, error, output

    def report(self, wanted):
        source = self.notebook.sources[self.number][0]
        frames = [
            (f.filename, f.lineno, f.name) for f in traceback.extract_tb(self.error.__traceback__)
        ]
        places = [p for p in map(self.place, frames) if p]
        at = next((line for n, line, _ in places if n == self.number), None)
        if isinstance(self.error, SyntaxError) and at is None:
            at = self.error.lineno
        needed = "" if wanted == self.number else f" (which cell {wanted} needs)"
        said = "".join(traceback.format_exception_only(self.error)).rstrip()
        kind, says = (
            type(self.error).__name__,
            "".join(f": {line}" for line in str(self.error).strip().splitlines()[:1]),
        )
        lines = [
            f"{self.notebook.path.relative_to(ROOT)}, cell {self.number}{needed}: {kind}{says}",
            "",
        ]
        for i, text in enumerate(source.splitlines(), 1):
            lines.append(f"{'--->' if i == at else '    '} {i:3} {text}")
        lines.append("")
        inner = (
            places[places.index(next(p for p in places if p[0] == self.number)) + 1 :]
            if at and places
            else []
        )
        lines += [
            f"  in {where} line {n}: {text}"
            for where, n, text in (
                (f"cell {p[0]}" if isinstance(p[0], int) else p[0], p[1], p[2]) for p in inner
            )
        ]
        if values := self.values(at):
            lines += [f"  where {k} = {v}" for k, v in values.items()]
        lines.append(said)
        return "\n".join(lines)

    def place(self, frame):
        "(cell number or file, line, text) of a frame, or None where it is machinery."
        name, line, function = frame
        text = linecache.getline(name, line).strip()
        held = "".join(linecache.getlines(name)).strip()
        for n, (source, _) in self.notebook.sources.items():
            if held and held == source.strip():
                return n, line, text
        if any(part in name for part in ("/IPython/", "/execnb/", "nbcells.py", "/pytest")):
            return None
        path = Path(name)
        return (str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else name), line, text

    def values(self, at):
        "For an assertion without a message: the names it used, as far as they are short to show."
        tb = self.error.__traceback__
        if not isinstance(self.error, AssertionError) or str(self.error) or at is None:
            return {}
        while tb.tb_next:
            tb = tb.tb_next
        try:
            tree = ast.parse(self.notebook.sources[self.number][0])
        except SyntaxError:
            return {}
        asserts = [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.Assert) and n.lineno <= at <= n.end_lineno
        ]
        names = {n.id for a in asserts for n in ast.walk(a.test) if isinstance(n, ast.Name)}
        seen = {**tb.tb_frame.f_globals, **tb.tb_frame.f_locals}
        return {
            k: reprlib.repr(seen[k]) for k in sorted(names) if k in seen and not callable(seen[k])
        }


# ---------------------------------------------------------------- running


def make_shell_class():
    "Made on first use: IPython is slow to import, and `pytest tests/` need not wait for it."
    from execnb.shell import CaptureShell

    class QuietShell(CaptureShell):
        caught = None

        def showtraceback(
            self, exc_tuple=None, *args, **kw
        ):  # also where a figure or a _repr_html_ fails
            self.caught = (exc_tuple or sys.exc_info())[1]

        def showsyntaxerror(self, *args, **kw):
            self.caught = sys.exc_info()[1]

        def showindentationerror(self):
            self.caught = sys.exc_info()[1]

    return QuietShell


class Shell:
    "A notebook's namespace, as in a fresh kernel; `close` gives the process back as it was."

    kind = None

    def __init__(self, path):
        Shell.kind = Shell.kind or make_shell_class()
        self.saved = dict(
            cwd=os.getcwd(),
            path=list(sys.path),
            environ=dict(os.environ),
            main=sys.modules.get("__main__"),
            hooks=(sys.displayhook, sys.excepthook),
            filters=list(warnings.filters),
        )
        os.environ.setdefault("MPLBACKEND", "Agg")
        import matplotlib

        self.saved["rc"] = matplotlib.rcParams.copy()
        os.chdir(path.parent)
        sys.path.insert(0, str(path.parent))
        if torch := sys.modules.get("torch"):
            self.saved["dtype"] = torch.get_default_dtype()
            torch.manual_seed(67280421310721)  # what a fresh process starts from
        self.shell = Shell.kind(mpl_format="png")

    def run_source(self, source):
        "Run one cell: (the error or None, what it printed)."
        self.shell.caught = None
        with no_network() as tried:
            out = self.shell.run_cell(source)
        error = out.exception or self.shell.caught
        if error is None and tried:
            error = OfflineError(tried[0])
        return error, dict(stdout=out.stdout, stderr=out.stderr)

    def close(self):
        import matplotlib
        import matplotlib.pyplot as plt

        plt.close("all")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matplotlib.rcParams.update(self.saved["rc"])
        if "dtype" in self.saved:
            sys.modules["torch"].set_default_dtype(self.saved["dtype"])
        self.shell.history_manager.end_session()
        self.shell.reset(new_session=False)
        gc.collect()
        os.chdir(self.saved["cwd"])
        sys.path[:] = self.saved["path"]
        os.environ.clear()
        os.environ.update(self.saved["environ"])
        sys.modules["__main__"] = self.saved["main"]
        sys.displayhook, sys.excepthook = self.saved["hooks"]
        warnings.filters[:] = self.saved["filters"]


class OfflineError(OSError):
    "A notebook asked for the network."


@contextmanager
def no_network():
    "Local sockets work, any other is refused; yields the list of what was refused."
    tried, here = [], {None, "", "localhost", socket.gethostname(), "::1", "0.0.0.0", "::"}
    connect, connect_ex, sendto = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.socket.sendto,
    )
    getaddrinfo, gethostbyname = socket.getaddrinfo, socket.gethostbyname

    def local(host):
        host = host.decode() if isinstance(host, bytes) else host
        return host in here or str(host).startswith("127.")

    def check(host):
        if local(host):
            return
        tried.append(f"no network in a notebook: it asked for {host}")
        raise OfflineError(tried[-1])

    def guarded(method, at):
        def call(self, *args):
            if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(args[at], tuple):
                check(args[at][0])
            return method(self, *args)

        return call

    def asks(function):
        def call(host, *args, **kw):
            check(host)
            return function(host, *args, **kw)

        return call

    socket.socket.connect, socket.socket.connect_ex = guarded(connect, 0), guarded(connect_ex, 0)
    socket.socket.sendto = guarded(sendto, -1)
    socket.getaddrinfo, socket.gethostbyname = asks(getaddrinfo), asks(gethostbyname)
    try:
        yield tried
    finally:
        del socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto
        socket.getaddrinfo, socket.gethostbyname = getaddrinfo, gethostbyname


def listing():
    "{(file, its size and time)} of the working tree: the top level, nbs/ and vidiffedu/, without hidden files and caches."
    files = [p for p in ROOT.iterdir() if p.is_file()]
    for folder in ("nbs", "vidiffedu"):
        files += [p for p in (ROOT / folder).rglob("*") if p.is_file()]
    rels = {p: p.relative_to(ROOT) for p in files}
    return {
        (str(rel), (s.st_size, s.st_mtime_ns))
        for p, rel in rels.items()
        if not any(part.startswith(".") or part == "__pycache__" for part in rel.parts)
        and (s := p.stat())
    }
