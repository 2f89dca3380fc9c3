"""The commands as a user runs them: exit codes, one line on the error stream, nothing overwritten."""

import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
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
def test_a_wrong_command_line_ends_with_2(args):
    done = command(*args)
    assert (
        done.returncode == 2
        and "Traceback" not in done.stderr
        and "vidiffedu" in done.stderr.splitlines()[-1]
    )


def test_unwritable_folder_is_found_before_training(tmp_path):
    (tmp_path / "file").touch()
    done = command("demo", "--out", tmp_path / "file" / "below")
    one_line(done, 1, "vidiffedu demo", "--out: got", "expected a folder that can be written")
    assert done.stdout == "", "nothing may have begun"


def test_python_m_does_the_same(tmp_path):
    def run(*args):
        line = [sys.executable, "-m", "vidiffedu", *args]
        return subprocess.run(line, env=ENV, cwd=tmp_path, text=True, capture_output=True)

    assert run("--help").stdout == command("--help").stdout
    wrong = run("demo", "--steps", "0")
    assert wrong.returncode == 2 and "--steps: got '0', expected" in wrong.stderr


def test_lab_copies_updates_and_keeps(tmp_path):
    course = tmp_path / "mine"
    assert "copied" in command("lab", course, "--copy-only").stdout
    for name in ("explorers/score.ipynb", "checkpoints/score_q70.safetensors", "run_times.csv"):
        assert (course / name).read_bytes() == (ROOT / "nbs" / name).read_bytes(), name
    index, notation = course / "index.ipynb", course / "notation.ipynb"
    nb = json.loads(index.read_text())
    nb["cells"].append(dict(cell_type="markdown", id="mine", metadata={}, source=["my notes"]))
    index.write_text(json.dumps(nb))
    again = command("lab", course, "--copy-only")
    assert "1 left as you changed them" in again.stdout and "my notes" in index.read_text()
    assert not (course / "index.new.ipynb").exists(), (
        "the course has no newer version: nothing to put beside"
    )

    record = json.loads(
        (course / ".vidiffedu-manifest.json").read_text()
    )  # as if an older course had been copied
    for path in (index, notation):
        if path is notation:
            path.write_text("an older version")
        record[path.name] = __import__("hashlib").sha256(b"an older version").hexdigest()
    (course / ".vidiffedu-manifest.json").write_text(json.dumps(record))
    newer = command("lab", course, "--copy-only").stdout
    assert "1 updated" in newer and "index.new.ipynb" in newer
    assert (
        notation.read_bytes() == (ROOT / "nbs" / "notation.ipynb").read_bytes()
        and "my notes" in index.read_text()
    )
    assert (course / "index.new.ipynb").read_bytes() == (ROOT / "nbs" / "index.ipynb").read_bytes()


def test_lab_without_jupyterlab_says_so(tmp_path):
    done = command(
        "lab", tmp_path / "mine", before="import sys; sys.modules['jupyterlab'] = None; "
    )
    one_line(done, 1, 'pip install "vidiffedu[lab]"')
    assert not (tmp_path / "mine").exists()


def test_lab_on_a_file(tmp_path):
    (tmp_path / "file").touch()
    one_line(
        command("lab", tmp_path / "file", "--copy-only"), 1, "which is a file, expected a folder"
    )
    one_line(command("lab", tmp_path / "file" / "below", "--copy-only"), 1)


@pytest.mark.skipif(
    importlib.util.find_spec("jupyterlab") is None, reason="jupyterlab is not installed"
)
def test_lab_starts_jupyterlab_on_the_copies(tmp_path):
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
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "lab", "mine", "--no-browser", "--port", str(port)],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        stop = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/contents?token=t", timeout=2
                ) as r:
                    names = {f["name"] for f in json.load(r)["content"]}
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < stop, (
                    "JupyterLab did not start"
                )
                time.sleep(0.2)
        assert {"index.ipynb", "27_cli.ipynb"} <= names
    finally:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sig)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        process.wait(10)


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
