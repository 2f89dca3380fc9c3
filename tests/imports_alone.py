"""Import modules of the library, each in a process of its own, and say what came along, as JSON.

    python tests/imports_alone.py WHAT ...

Each WHAT is a module, `vidiffedu.score`, or a module and the packages that it may ask for beside
the standard library, `vidiffedu.core:torch,numpy,einops`. Prints {WHAT: {what was found}}; used by
test_hygiene.py. Where the system can fork, PyTorch is loaded once, before the processes part.
"""

import importlib
import json
import os
import socket
import subprocess
import sys

OURS = "vidiffedu"


def refuse_network(asked):
    "Every address that is asked for is noted and refused."

    def refuse(*args, **kwargs):
        asked.append(str([a for a in args if isinstance(a, (str, tuple))]))
        raise OSError("offline")

    for method in ("connect", "connect_ex", "sendto", "bind"):
        setattr(socket.socket, method, refuse)
    socket.getaddrinfo = refuse


class Refuse:
    "An import hook: our modules may ask for `only`; what those packages ask for is theirs to have."

    def __init__(self, only):
        self.only = only

    def find_spec(self, module, path=None, target=None):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in self.only or top == OURS:
            return None
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        by = frame.f_globals.get("__name__", "?") if frame else "?"
        if by.partition(".")[0] == OURS:
            raise ImportError(f"{by} imports {top} when it is imported")
        return None


def look(what):
    "Import it here; what was loaded, asked of the network, or promised in __all__ and not there."
    name, _, only = what.partition(":")
    asked, before = [], set(sys.modules)
    refuse_network(asked)
    if only:
        sys.meta_path.insert(0, Refuse(set(only.split(","))))
    try:
        module = importlib.import_module(name)
    except Exception as e:
        return dict(error=f"{type(e).__name__}: {e}")
    new = {m.partition(".")[0] for m in set(sys.modules) - before}
    missing = [n for n in getattr(module, "__all__", []) if not hasattr(module, n)]
    loaded = sorted(new - set(sys.stdlib_module_names))
    return dict(asked=asked, missing=missing, file=module.__file__, loaded=loaded)


def apart(what):
    "`look` in a process that ends with it."
    if not hasattr(os, "fork"):
        done = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True)
        return json.loads(done.stdout)[what] if done.returncode == 0 else dict(error=done.stderr)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(write, "w") as out:
            json.dump(look(what), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as out:
        text = out.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else dict(error="the process died")


def main(whats):
    if len(whats) == 1:
        return {whats[0]: look(whats[0])}
    if hasattr(os, "fork"):
        import einops  # noqa: F401
        import numpy  # noqa: F401
        import torch  # noqa: F401
    return {what: apart(what) for what in whats}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
