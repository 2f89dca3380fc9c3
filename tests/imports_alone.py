"""Import one module of the library in this fresh process and say what came along, as JSON; used by test_hygiene.py.

python tests/imports_alone.py MODULE [--only NAME,NAME...]      only these top-level packages beside the standard library
"""

import importlib
import json
import socket
import sys

name, only = sys.argv[1], set(sys.argv[3].split(",")) if len(sys.argv) > 3 else None
asked = []
for method in ("connect", "connect_ex", "sendto", "bind"):
    setattr(
        socket.socket,
        method,
        lambda self, *args, **kw: (
            asked.append(str(args)) or (_ for _ in ()).throw(OSError("offline"))
        ),
    )
socket.getaddrinfo = lambda host, *args, **kw: (
    asked.append(str(host)) or (_ for _ in ()).throw(OSError("offline"))
)


class Refuse:
    "An import hook: what our own module asks for must be in `only`; what the allowed packages ask for is theirs to have."

    def find_spec(self, module, path=None, target=None):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in only or top == "vidiffedu":
            return None
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame and frame.f_globals.get("__name__", "").partition(".")[0] in only:
            return None
        by = frame.f_globals.get("__name__") if frame else "?"
        if by.partition(".")[0] == "vidiffedu":
            raise ImportError(f"{by} imports {top} when it is imported")


if only:
    sys.meta_path.insert(0, Refuse())
module = importlib.import_module(name)
missing = [n for n in getattr(module, "__all__", []) if not hasattr(module, n)]
print(
    json.dumps(
        dict(
            asked=asked,
            missing=missing,
            file=module.__file__,
            loaded=sorted(
                {m.partition(".")[0] for m in sys.modules} - set(sys.stdlib_module_names)
            ),
        )
    )
)
