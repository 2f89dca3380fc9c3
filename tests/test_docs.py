"""Every public name says what it is: shapes where tensors go in, the errors that it raises itself, and where a page derives it."""

import ast
import importlib
import inspect
import json
import pathlib
import pkgutil
import re
import textwrap

import pytest
import torch

import vidiffedu

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = set("bfchwknmMsdr")  # the letters of sizes
WORDS = re.compile(r"\b(?:scalars?|shapes?|a number|any tensor)\b")
PROSE = re.compile(r"\b(?:the|of|an?|or|and|in|is|to|as|it|no|for|with)\b")
# names that the course keeps for tensors (nbs/notation.ipynb)
TENSORS = {
    "x",
    "x_t",
    "x_s",
    "X",
    "clip",
    "clips",
    "target",
    "samples",
    "past",
    "mask",
    "x_hat",
    "known",
    "y",
    "frames",
    "t",
    "s",
    "ts",
    "score",
    "noise",
    "sigma",
    "cov",
    "video",
    "films",
}


def public():
    "(module, name, object) of every function and class that a module offers as its own."
    for m in pkgutil.walk_packages(vidiffedu.__path__, "vidiffedu."):
        if "._" in m.name:
            continue
        module = importlib.import_module(m.name)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            own = getattr(thing, "__module__", None) == m.name
            if own and (inspect.isfunction(thing) or inspect.isclass(thing)):
                yield m.name, name, thing


PUBLIC = list(public())


def head_of(thing):
    "What an editor shows: signature with its comments, and the docstring."
    source = textwrap.dedent(inspect.getsource(thing))
    node = ast.parse(source).body[0]
    first = node.body[0]
    return "\n".join(source.splitlines()[: first.end_lineno])


def is_shape(inside):
    "Sizes between brackets, as in `b f c h w`, `b, k + 1, 1, h, w`, `steps,`, `...`, `samples, b, ...`."
    if re.fullmatch(r"\w+,|\.{3}(?:,? \w+)*", inside):
        return True
    items = [i.strip() for i in (inside.split(",") if "," in inside else inside.split())]
    items = [i for i in items if i]
    sized = any(i in SIZES or re.match(r"[a-zA-Z] [-+*] ", i) for i in items)
    plain = all(re.fullmatch(r"[\w'.+*/() -]+", i) for i in items)
    return sized and plain and not PROSE.search(inside)


def says_shape(text):
    inner = re.findall(r"(?<!\w)\(((?:[^()]|\([^()]*\))*)\)", text)
    return bool(WORDS.search(text)) or any(map(is_shape, inner))


def beside(thing, name):
    "The comment that stands in a signature beside a parameter, or after a signature of one line."
    found = re.search(
        rf"(?m)^ +{name}\b[^#\n]*#(.*)$|^def [^#\n]*\b{name}\b[^#\n]*#(.*)$", head_of(thing)
    )
    return (found[1] or found[2]) if found else ""


def no_tensor(thing, parameter):
    "A default or annotation of another kind, or a comment: a count, a file, a list, a label."
    other, kind = parameter.default, parameter.annotation
    if other not in (None, parameter.empty) or kind not in (parameter.empty, torch.Tensor):
        return not isinstance(other, torch.Tensor) and kind is not torch.Tensor
    said = beside(thing, parameter.name)
    return bool(re.search(r"\b(?:how many|file|list|label)\b", said)) and not says_shape(said)


def takes_tensors(thing):
    given = inspect.signature(thing).parameters
    return any(n in given and not no_tensor(thing, given[n]) for n in TENSORS)


def raised(thing):
    "Names of the errors that a function raises itself; bad input is a ValueError or TypeError everywhere."
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            if call.func.id not in ("ValueError", "TypeError"):
                yield call.func.id


def test_there_are_names_to_look_at():
    assert (
        len(PUBLIC) > 300
        and sum(takes_tensors(t) for _, _, t in PUBLIC if inspect.isfunction(t)) > 50
    )


@pytest.mark.parametrize("module", sorted({m for m, _, _ in PUBLIC}))
def test_every_public_name_says_what_it_is(module):
    mute = [n for m, n, t in PUBLIC if m == module and not (t.__doc__ or "").strip()]
    mute += [n for m, n, t in PUBLIC if m == module and (t.__doc__ or "").startswith(f"{n}(")]
    assert not mute, f"without a docstring of their own: {mute}"  # a NamedTuple's own begins so


@pytest.mark.parametrize("module", sorted({m for m, _, _ in PUBLIC}))
def test_tensors_come_with_their_shapes(module):
    functions = [(n, t) for m, n, t in PUBLIC if m == module and inspect.isfunction(t)]
    bare = [n for n, t in functions if takes_tensors(t) and not says_shape(head_of(t))]
    assert not bare, f"take tensors of a shape that is not said: {bare}"


def heads(cls):
    "Docstring of a class and heads of its methods, and those of its bases in the library."
    for base in cls.__mro__:
        if base.__module__.startswith("vidiffedu"):
            yield base.__doc__ or ""
            yield from (head_of(v) for v in vars(base).values() if inspect.isfunction(v))


@pytest.mark.parametrize("module", sorted({m for m, _, _ in PUBLIC}))
def test_networks_come_with_their_shapes(module):
    kinds = [(n, t) for m, n, t in PUBLIC if m == module and inspect.isclass(t)]
    kinds = [(n, t) for n, t in kinds if issubclass(t, torch.nn.Module)]
    bare = [n for n, t in kinds if not any(says_shape(head) for head in heads(t))]
    assert not bare, f"take tensors of a shape that is not said: {bare}"


@pytest.mark.parametrize("module", sorted({m for m, _, _ in PUBLIC}))
def test_errors_are_told(module):
    functions = [(n, t) for m, n, t in PUBLIC if m == module and inspect.isfunction(t)]
    told = [(n, e) for n, t in functions for e in set(raised(t)) if e not in head_of(t)]
    assert not told, f"raise what they do not name: {told}"


def api_rows():
    "(module, name, what the API page says of it): the page's own code, on the library as it is."
    cells = json.loads((ROOT / "nbs/api.ipynb").read_text(encoding="utf-8"))["cells"]
    page = {}
    exec("".join(next(c for c in cells if c["cell_type"] == "code")["source"]), page)
    for module, *rest in page["pages"](ROOT / "nbs"):
        for row in page["table"](module, *rest).splitlines():
            if found := re.fullmatch(r"\| \[(\w+)\]\(\S+\) \| `.*` \| ?(.*) \|", row):
                yield module, found[1], found[2].strip()


def test_the_api_page_describes_every_name():
    rows = list(api_rows())
    assert {n for _, n, _ in rows} >= {n for _, n, _ in PUBLIC}
    assert {("vidiffedu.arena", n) for n in ("PAST", "SIZE")} <= {r[:2] for r in rows}
    mute = [f"{m}.{n}" for m, n, said in rows if not said]
    assert not mute, f"a docstring, or a comment beside or above a constant, is missing: {mute}"


def test_every_public_name_stands_on_the_page_that_derives_it():
    found = set()
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        found |= set(re.findall(r"(?m)^(?:def|class) (\w+)", code))
    assert not (lost := [n for _, n, _ in PUBLIC if n not in found]), lost


# ---------------------------------------------------------------- the measures themselves


@pytest.mark.parametrize(
    "text",
    ["x (b f c h w)", "(b,1,c,h,w)", "-> (steps + 1, f)", "t (), (b,)", "(... dim)", "a scalar"],
)
def test_a_shape_is_seen(text):
    assert says_shape(text)


@pytest.mark.parametrize(
    "text",
    ["f(n, generator)", "(in words)", "(a file)", "(see the page)", "x, a tensor", "(k of them)"],
)
def test_prose_is_no_shape(text):
    assert not says_shape(text)


def test_which_parameters_are_tensors():
    def count(past=2): ...
    def clip(clip: torch.Tensor): ...
    def bare(x, generator=None): ...

    assert [takes_tensors(f) for f in (count, clip, bare)] == [False, True, True]
