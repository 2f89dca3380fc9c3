"""A notebook in JupyterLab in headless Chromium: run it, move a control by keyboard, look at the picture.

    with open_notebook("nbs/08_score.ipynb") as nb:      # a copy in a temporary folder, its own server and kernel
                                                         # (`lab`: one server for several)
        nb.run_all()
        seconds = nb.move(control="σ", key="ArrowRight")  # keyboard; returns when the explorer's picture has changed
        nb.assert_clean()

By hand:  python tests/browser.py nbs/08_score.ipynb --shot page.png
What an explorer must offer: a root widget with the DOM class `vidiffedu-explorer`, in it an `ipywidgets.HTML` with the
class `vidiffedu-picture` and standard ipywidgets sliders; while slower work goes on the root has the class `vidiffedu-busy`.
"""

import argparse
import base64
import contextlib
import html
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent

# console messages that do not count: (exact pattern, why)
HARMLESS = [
    (
        r"^Failed to load resource: the server responded with a status of 404 \(Not Found\) .*/api/contents/.*checkpoints",
        "JupyterLab asks for a saved checkpoint of a notebook that was never saved",
    ),
    (
        r"^Failed to load resource: .*/favicon\.ico",
        "the browser asks for an icon, the server may have none",
    ),
]


def chromium():
    "Path of a Chromium or Chrome on this machine, or None; VIDIFFEDU_CHROMIUM overrides."
    names = [
        os.environ.get("VIDIFFEDU_CHROMIUM") or "chromium",
        "chromium-browser",
        "google-chrome",
        "chrome",
    ]
    return next((p for p in map(shutil.which, names) if p), None)


def missing():
    "Why a browser test cannot run here, or None when it can."
    for package in ("jupyterlab", "playwright", "ipywidgets"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install -e '.[dev]'"
    if chromium() is None:
        return "no Chromium found: apt-get install chromium, or set VIDIFFEDU_CHROMIUM to its path"


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _write_settings(folder):
    "JupyterLab without its news pop-up and update check, every cell in the page."
    for name, values in {
        "apputils-extension/notification": {
            "fetchNews": "false",
            "checkForUpdates": False,
            "doNotDisturbMode": True,
        },
        "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    }.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@contextlib.contextmanager
def server(folder, env=None, timeout=120):
    "JupyterLab serving `folder` on a free port, with Jupyter directories of its own; killed, with its kernels, at the end."
    with tempfile.TemporaryDirectory(
        prefix="vidiffedu-jupyter-", ignore_cleanup_errors=True
    ) as home:
        home = pathlib.Path(home)
        dirs = {
            k: str(home / k.lower())
            for k in (
                "JUPYTER_CONFIG_DIR",
                "JUPYTER_DATA_DIR",
                "JUPYTER_RUNTIME_DIR",
                "IPYTHONDIR",
                "JUPYTERLAB_SETTINGS_DIR",
                "JUPYTERLAB_WORKSPACES_DIR",
                "MPLCONFIGDIR",
            )
        }
        _write_settings(home / "jupyterlab_settings_dir")
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
        environment = {
            **os.environ,
            **dirs,
            "PYTHONPATH": path,
            "JUPYTER_PLATFORM_DIRS": "1",
            **(env or {}),
        }
        port, log = _free_port(), open(home / "server.log", "w+")
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--ip=127.0.0.1",
            f"--port={port}",
            "--ServerApp.port_retries=0",
            "--allow-root",
            "--IdentityProvider.token=",
            "--LabApp.expose_app_in_browser=True",
            f"--ServerApp.root_dir={folder}",
        ]
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            url, stop = f"http://127.0.0.1:{port}", time.monotonic() + timeout
            while True:
                log.flush()
                if process.poll() is not None:
                    raise RuntimeError(
                        f"JupyterLab ended at once:\n{(home / 'server.log').read_text()[-3000:]}"
                    )
                with contextlib.suppress(OSError, urllib.error.URLError):
                    urllib.request.urlopen(f"{url}/api/status", timeout=2).close()
                    break
                if time.monotonic() > stop:
                    raise TimeoutError(f"JupyterLab did not answer within {timeout} s")
                time.sleep(0.1)
            yield url
        finally:
            _end(process)
            log.close()


def _end(process):
    "Ask the server to stop (it stops its kernels), then insist on its whole process group."
    for sig, wait in ((signal.SIGTERM, 8), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sig)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            if sig == signal.SIGTERM:
                continue  # the server is gone: whatever is left of its group goes with the next signal


def copy_for_test(notebook, folder):
    "The notebook, and the data files and folders beside it (checkpoints, studies), into `folder`."
    notebook = pathlib.Path(notebook).resolve()
    if not notebook.is_file():
        raise FileNotFoundError(f"notebook: no file {notebook}")
    shutil.copy2(notebook, folder)
    for p in notebook.parent.iterdir():  # several notebooks may share what lies beside them
        if p.name[0] in "._" or p.suffix == ".ipynb" or p.is_symlink():
            continue
        if p.is_dir():
            leave = shutil.ignore_patterns("*.ipynb", "__pycache__", ".*")
            shutil.copytree(p, folder / p.name, ignore=leave, dirs_exist_ok=True)
        elif p.suffix in (".csv", ".safetensors", ".json", ".bib"):
            shutil.copy2(p, folder)
    return folder / notebook.name


# ---------------------------------------------------------------- pictures and numbers


def close_numbers(a, b, at_most=0.02):
    "The same words, and numbers that differ by at most 2 % or 0.02."
    number = r"-?\d+(?:\.\d+)?"
    if re.sub(number, "#", a) != re.sub(number, "#", b):
        return False
    pairs = zip(re.findall(number, a), re.findall(number, b), strict=True)
    return all(abs(float(x) - float(y)) <= at_most * max(1, abs(float(x))) for x, y in pairs)


def pixels(source):
    import numpy as np
    from PIL import Image

    data = base64.b64decode(source.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data))).astype(float)


def same_picture(a, b):
    "Do two pieces of HTML show the same? Pixels to 2 grey levels on average, lines to one pixel."
    import numpy as np

    sources = [re.findall(r'src="([^"]*)"', text) for text in (a, b)]
    lines = [re.findall(r' (?:d|x|y|cx|cy|height)="([^"]*)"', text) for text in (a, b)]
    if any(len(x) != len(y) for x, y in (sources, lines)):
        return False
    for x, y in zip(*sources):
        if x != y:
            p, q = pixels(x), pixels(y)
            if p.shape != q.shape or np.abs(p - q).mean() > 2:
                return False
    return all(x == y or close_lines(x, y) for x, y in zip(*lines))


def close_lines(a, b, at_most=1.5):
    "Two lists of places that differ by at most so many screen pixels."
    p, q = ([float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text)] for text in (a, b))
    return len(p) == len(q) and all(abs(x - y) <= at_most for x, y in zip(p, q))


def words(text):
    "The words of a piece of HTML, without those inside diagrams."
    text = re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]*>", " ", text, flags=re.S)
    return " ".join(html.unescape(text).split())


# ---------------------------------------------------------------- accessibility


def axe_core(folder):
    "The source of axe-core, fetched by npm into `folder`; None where npm or the network is missing."
    npm = shutil.which("npm")
    if npm is None:
        return None
    packed = [npm, "pack", "axe-core@4.14.1", "--silent"]
    try:
        run = subprocess.run(packed, cwd=folder, capture_output=True, text=True, timeout=60)
        archive = next(pathlib.Path(folder).glob("axe-core-*.tgz"), None)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if run.returncode or archive is None:
        return None
    with tarfile.open(archive) as tar:
        return tar.extractfile("package/axe.min.js").read().decode()


def accessibility(page, source, inside):
    "What axe-core finds wrong inside the elements of this selector: one line each."
    if not page.evaluate("() => !!window.axe"):
        page.evaluate(source)
    found = page.evaluate(
        """async (inside) => (await axe.run({include: [...document.querySelectorAll(inside)]},
            {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})).violations""",
        inside,
    )
    return [f"{v['id']}: {n['html'][:120]}" for v in found for n in v["nodes"]]


class Notebook:
    "An open notebook: what a reader can do with it, by keyboard, and what the browser's console said."

    def __init__(self, page, console):
        self.page, self.console, self.timings, self.at = page, console, [], 0

    def run_all(self, timeout=120):
        "Run every cell; an exception in a cell is raised here with the cell's number and its last line."
        self.page.evaluate("""() => { window._ran = null; window._failed = null;
            window.jupyterapp.commands.execute('notebook:run-all-cells').then(v => { window._ran = true }, e => { window._failed = String(e) }) }""")
        self.page.wait_for_function("() => window._ran || window._failed", timeout=timeout * 1000)
        errors = self.page.evaluate("""() => { const out = [], cells = window.jupyterapp.shell.currentWidget.content.model.cells;
            for (let i = 0; i < cells.length; i++) { const m = cells.get(i); if (m.type !== 'code') continue;
              for (let j = 0; j < m.outputs.length; j++) { const o = m.outputs.get(j).toJSON();
                if (o.output_type === 'error') out.push(`cell ${i}: ${o.ename}: ${o.evalue}`) } } return out }""")
        failed = self.page.evaluate("() => window._failed")
        if errors or failed:
            raise AssertionError("; ".join(errors) or failed)

    @property
    def root(self):
        "The explorer in use: the first on the page, or the one that `use` chose."
        return self.page.locator(".vidiffedu-explorer").nth(self.at)

    def use(self, at):
        "Turn to explorer number `at` of the page; its predictions and pictures are meant from now on."
        self.at = at
        self.root.scroll_into_view_if_needed()
        return self

    def picture(self):
        "The HTML of the explorer's picture as it is now, or None."
        found = self.root.locator(".vidiffedu-picture .widget-html-content")
        if not found.count():
            return None
        return found.evaluate("e => e.querySelector('img, svg') && e.innerHTML")

    def text(self, name):
        "The words of a part of the explorer: caption, result, note."
        return self.root.locator(f".vidiffedu-{name}").inner_text().strip()

    def html(self, name):
        "The HTML of a part of the explorer."
        return self.root.locator(f".vidiffedu-{name} .widget-html-content").inner_html()

    def control(self, label=None):
        "The handle of the slider with this label (the first slider when None)."
        rows = self.root.locator(".widget-slider")
        if label is not None:
            rows = self.root.locator(".widget-slider", has=self.page.get_by_text(label, exact=True))
        return rows.first.locator(".noUi-handle").first

    def move(self, control=None, key="ArrowRight", timeout=15):
        "Press `key` on a control; returns the seconds until its new picture was in the page."
        if self.picture() is None:
            raise AssertionError(
                "no explorer picture: a part of class vidiffedu-picture inside class vidiffedu-explorer"
            )
        handle = control if hasattr(control, "focus") else self.control(control)
        handle.scroll_into_view_if_needed(timeout=timeout * 1000)
        handle.focus(timeout=timeout * 1000)
        value = handle.get_attribute("aria-valuetext")
        self.root.evaluate("""(root) => { window._pressed = null; window._answered = null;
            const was = root.querySelector('.vidiffedu-picture').innerHTML;
            document.addEventListener('keydown', () => { window._pressed = performance.now() }, {capture: true, once: true});
            const watch = new MutationObserver(() => { const picture = root.querySelector('.vidiffedu-picture');
              if (picture.innerHTML !== was) { window._answered = performance.now(); watch.disconnect() } });
            watch.observe(root, {childList: true, subtree: true, characterData: true}) }""")
        self.page.keyboard.press(key)
        try:
            self.page.wait_for_function("() => window._answered", timeout=timeout * 1000)
        except Exception as e:
            raise AssertionError(
                f"the picture did not change within {timeout} s of {key} on {control or 'the first slider'} "
                f"(value {value} -> {handle.get_attribute('aria-valuetext')})"
            ) from e
        self.timings.append(self.page.evaluate("() => (window._answered - window._pressed) / 1000"))
        return self.timings[-1]

    def predict(self, words):
        "Type a prediction and press Enter; returns what settles the question."
        box = self.root.locator("input[type=text]").first
        box.scroll_into_view_if_needed()
        box.focus()
        self.page.keyboard.type(words)
        self.page.keyboard.press("Enter")
        result = self.root.locator(".vidiffedu-result")
        result.filter(has_text=words).wait_for()
        return self.text("result")

    def press(self, label):
        "Press a button of a choice by keyboard."
        button = self.root.locator(".widget-toggle-button", has_text=re.compile(f"^{label}$")).first
        button.focus()
        self.page.keyboard.press("Space")

    def tick(self, label):
        "Tick or untick a box by keyboard."
        self.root.get_by_label(label, exact=True).focus()
        self.page.keyboard.press("Space")

    def theme(self, name):
        "JupyterLab Light or JupyterLab Dark."
        self.page.evaluate(
            """(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})""",
            name,
        )
        shade = "false" if "Dark" in name else "true"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{shade}"]', state="attached")

    def run_cell(self, i):
        "Run cell i alone; the text that it prints."
        self.page.evaluate(
            """async (i) => { const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = i; notebook.deselectAll(); window._one = null;
            window.jupyterapp.commands.execute('notebook:run-cell').then(() => { window._one = true }) }""",
            i,
        )
        self.page.wait_for_function("() => window._one")
        return self.page.evaluate(
            """(i) => { const outs = window.jupyterapp.shell.currentWidget.content.model.cells.get(i).outputs, said = [];
            for (let j = 0; j < outs.length; j++) { const o = outs.get(j).toJSON(); said.push(o.text || '') } return said.flat().join('') }""",
            i,
        )

    def next_day(self):
        "Save, restart the kernel, load the page anew."
        self.page.evaluate("""async () => { const w = window.jupyterapp.shell.currentWidget;
            await w.context.save(); await w.sessionContext.session.kernel.restart() }""")
        self.page.reload()
        self.page.wait_for_function(RESTORED)
        self.page.wait_for_function(READY)

    def settle(self, timeout=30):
        "Wait until the explorer has finished its slower work; returns the seconds waited."
        start = time.monotonic()
        self.page.wait_for_function(
            "() => !document.querySelector('.vidiffedu-explorer.vidiffedu-busy')",
            timeout=timeout * 1000,
        )
        return time.monotonic() - start

    def assert_clean(self):
        "No error on the browser's console but those listed, with a reason, in HARMLESS."
        bad = [m for m in self.console if not any(re.search(p, m) for p, _ in HARMLESS)]
        assert not bad, "console errors:\n" + "\n".join(bad)

    def shot(self, path):
        "Screenshot of the whole notebook, not only of the part in view."
        height = self.page.evaluate("""() => { const e = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer');
            if (!e) return 1200; e.scrollTop = 0; return e.scrollHeight }""")
        self.page.set_viewport_size({"width": 1280, "height": min(int(height) + 140, 16000)})
        self.page.wait_for_timeout(800)
        self.page.screenshot(path=str(path))


RESTORED = "() => window.jupyterapp && window.jupyterapp.restored.then(() => true)"
READY = """() => { const w = window.jupyterapp.shell.currentWidget;
    return w && w.sessionContext && w.sessionContext.ready.then(
        () => !!w.sessionContext.session && w.context.ready.then(() => true)) }"""


def open_page(browser, url, timeout):
    "A new tab on a notebook, its kernel ready, its console recorded."
    page, console = browser.new_page(viewport={"width": 1280, "height": 1000}), []
    page.set_default_timeout(timeout * 1000)

    def heard(m):
        if m.type == "error":
            console.append(f"{m.text} {m.location.get('url', '')}")

    page.on("console", heard)
    page.on("pageerror", lambda e: console.append(f"uncaught: {e}"))
    page.goto(url)
    page.wait_for_function(RESTORED)
    page.wait_for_function(READY)
    return Notebook(page, console)


def close_page(notebook):
    "Close the tab and end its kernel."
    end = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
    with contextlib.suppress(Exception):
        notebook.page.evaluate(end)
    notebook.page.close()


@contextlib.contextmanager
def lab(env=None, timeout=120):
    "One JupyterLab and one browser for several notebooks; yields open(notebook), which opens a copy."
    from playwright.sync_api import sync_playwright

    env = {"VIDIFFEDU_FAST": "1", **(env or {})}
    debris = dict(prefix="vidiffedu-browser-", ignore_cleanup_errors=True)
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    how = dict(executable_path=chromium(), headless=True, args=arguments)
    with tempfile.TemporaryDirectory(**debris) as folder:
        with server(folder, env=env, timeout=timeout) as url, sync_playwright() as play:
            browser = play.chromium.launch(**how)

            @contextlib.contextmanager
            def open_one(notebook):
                name = copy_for_test(notebook, pathlib.Path(folder)).name
                opened = open_page(browser, f"{url}/lab/tree/{name}?reset", timeout)
                try:
                    yield opened
                finally:
                    close_page(opened)

            try:
                yield open_one
            finally:
                browser.close()


@contextlib.contextmanager
def open_notebook(notebook, env=None, timeout=120):
    "A copy of the notebook, open in JupyterLab with its kernel ready; VIDIFFEDU_FAST=1 makes chapters load their checkpoints."
    with lab(env, timeout) as open_one, open_one(notebook) as opened:
        yield opened


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Run a notebook in JupyterLab in headless Chromium."
    )
    parser.add_argument("notebook")
    parser.add_argument("--shot", help="write a screenshot of the whole page after the run")
    parser.add_argument("--control", help="label of a slider to move (with --key)")
    parser.add_argument("--key", help="a key to press on it, e.g. ArrowRight", default=None)
    parser.add_argument(
        "--slow", action="store_true", help="do not set VIDIFFEDU_FAST: train for real"
    )
    parser.add_argument("--timeout", type=float, default=300)
    args = parser.parse_args(argv)
    if reason := missing():
        sys.exit(reason)
    start = time.time()
    with open_notebook(args.notebook, env={"VIDIFFEDU_FAST": "" if args.slow else "1"}) as nb:
        ready = time.time()
        nb.run_all(args.timeout)
        print(f"open {ready - start:.1f} s, run {time.time() - ready:.1f} s")
        if args.key:
            print(
                f"{args.key}: answered in {1000 * nb.move(args.control, args.key):.0f} ms, settled after {nb.settle():.1f} s"
            )
        if args.shot:
            nb.shot(args.shot)
        for line in nb.console:
            print("console:", line)
    print(f"all {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
