"""How long `import vidiffedu` and each module take, beside `import torch`: python tests/benchmarks/import_time.py [REPEATS]

Each figure is the median of fresh processes, with the interpreter's own start taken off. It measures and judges nothing.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

root, repeats = Path(__file__).resolve().parents[2], int(sys.argv[1]) if len(sys.argv) > 1 else 5


def seconds(code):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def module(path):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


bare = seconds("pass")
files = sorted((root / "vidiffedu").rglob("*.py"))
names = [module(p) for p in files if p.name not in ("_modidx.py", "__main__.py")]
for name in ["torch", *names]:
    print(f"import {name:26} {1000 * (seconds(f'import {name}') - bare):8.1f} ms")
