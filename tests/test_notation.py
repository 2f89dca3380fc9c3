r"""One letter, one meaning: every symbol of every numbered equation stands in the table of nbs/notation.ipynb.

    pytest tests/test_notation.py
    python tests/test_notation.py      every numbered equation and what it holds

How it is counted:

- **A numbered equation** is `$$ ... \tag{n} $$` in a text cell of a lesson (00 to 19).
- **A symbol** is a Latin or Greek letter, or a letter under an accent (`\hat x`, `\dot x`) or in
  another alphabet (`\mathcal N`); an index is a symbol too. Primes, numbers, words (`\text{...}`),
  names of functions (`\log`, `\operatorname{...}`) and layout are none.
- **The table** is the first one of the notation page: the formulas of its first column. Where it has
  a letter with an index only ($u_t$), the letter must not stand without one.
"""

import json
import re
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parents[1] / "nbs"

GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi "
    "rho varrho sigma varsigma tau upsilon phi varphi chi psi omega ell "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split()
)
ACCENTS = set("hat dot bar tilde check vec widehat widetilde overline".split())
ALPHABETS = set("mathcal mathbb mathbf boldsymbol bm mathfrak mathsf".split())
WORDS = set("text textbf textit mathrm operatorname operatorname* mathit tag begin end".split())
OPERATORS = set(
    # functions and operators
    "log exp sin cos tan sinh cosh tanh arcsin arctan min max arg sup inf lim det dim "
    "nabla partial int iint sum prod sqrt frac tfrac dfrac binom circ cdot cdots times div pm mp "
    "underbrace overbrace underset overset stackrel substack "
    # relations and arrows
    "le ge leq geq ll gg ne neq approx sim propto equiv in notin subset cup cap mid parallel "
    "to mapsto gets leftarrow rightarrow Rightarrow Leftarrow Leftrightarrow leftrightarrow "
    "Longrightarrow Longleftrightarrow iff implies oplus otimes ast star top perp infty forall exists "
    # brackets, dots, spaces, sizes
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr "
    "lVert rVert lvert rvert vert Vert langle rangle lfloor rfloor lceil rceil lbrace rbrace "
    "dots ldots vdots ddots quad qquad hspace displaystyle textstyle limits nolimits not prime "
    "phantom middle".split()
)
TOKEN = re.compile(r"\\([A-Za-z]+\*?)|\\.|([A-Za-z])|([_^{}])|(\S)", re.S)


# ---------------------------------------------------------------- taking a formula apart


def group(text, at):
    "(content, end) of the argument that begins at `at`: `{...}`, a command, or one character."
    while at < len(text) and text[at].isspace():
        at += 1
    if at < len(text) and text[at] == "{":
        depth = 0
        for i in range(at, len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if not depth:
                return text[at + 1 : i], i + 1
        return text[at + 1 :], len(text)
    found = re.compile(r"\\[A-Za-z]+|\\?.", re.S).match(text, at)
    return (found[0], found.end()) if found else ("", at)


def has_index(text, at):
    return bool(re.compile(r"['\s]*_").match(text, at))


def symbols(formula):
    r"(symbol, whether it has an index) of every letter of a formula: `x`, `\sigma`, `\hat x`."
    at = 0
    while at < len(formula):
        token = TOKEN.match(formula, at)
        if not token:  # white space
            at += 1
            continue
        command, letter, at = token[1], token[2], token.end()
        if letter:
            yield letter, has_index(formula, at)
        elif command in WORDS:
            _, at = group(formula, at)
        elif command in ACCENTS | ALPHABETS:
            content, at = group(formula, at)
            inner = [name for name, _ in symbols(content)]
            for name in inner:
                yield f"\\{command} {name}", has_index(formula, at)
        elif command in GREEK:
            yield f"\\{command}", has_index(formula, at)
        elif command and command not in OPERATORS:
            yield f"\\{command} (neither operator nor letter)", False


def equations(text):
    "(number, formula) of every numbered equation."
    for formula in re.findall(r"\$\$(.*?)\$\$", text, re.S):
        if tag := re.search(r"\\tag\{(.*?)\}", formula):
            yield tag[1], formula


# ---------------------------------------------------------------- the table


def first_table(text):
    "The first column of a text's first table, row by row."
    rows = []
    for line in text.splitlines():
        if line.startswith("|"):
            rows.append(re.split(r"(?<!\\)\|", line)[1].strip())
        elif rows:
            break
    return rows[2:]


def entries(rows):
    r"The table's formulas, one by one: `$x_t$, $x_s$` are two; spaces do not count."
    return [re.sub(r"\s+", " ", f).strip() for row in rows for f in re.findall(r"\$(.*?)\$", row)]


def listed(rows):
    "(symbols that the table has, those of them that it has with an index only)"
    every = [pair for entry in entries(rows) for pair in symbols(entry)]
    bare = {name for name, index in every if not index}
    return {name for name, _ in every}, {
        name for name, index in every if index and name not in bare
    }


def problems(page, text, rows):
    known, indexed = listed(rows)
    for tag, formula in equations(text):
        found = dict.fromkeys(symbols(formula))
        for name in dict.fromkeys(name for name, _ in found if name not in known):
            yield f"{page}, eq. ({tag}): {name} is not in the table of nbs/notation.ipynb"
        for name, index in found:
            if name in indexed and not index:
                yield f"{page}, eq. ({tag}): {name} without an index, which the table does not have"


def text_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def table():
    return first_table(text_of(NBS / "notation.ipynb"))


PAGES = sorted(NBS.glob("[01][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_every_symbol_is_in_the_table(path):
    found = list(problems(path.stem, text_of(path), table()))
    assert not found, "\n" + "\n".join(found)


def test_no_symbol_stands_twice_in_the_table():
    found = entries(table())
    twice = sorted({e for e in found if found.count(e) > 1})
    assert not twice, f"twice in the table of nbs/notation.ipynb: {', '.join(twice)}"
    assert len(found) > 40, f"the table of nbs/notation.ipynb was not found: {found}"


# ---------------------------------------------------------------- the rules can fail

TABLE = r"""
| symbol | in code | meaning |
|---|---|---|
| $x$, $x_t$ | `x` | a clip |
| $t$ | | a time |
| $\hat x$ | | an estimate |
| $\sigma$ | | a noise level |
| $u_t$ | | frame and noise |
| $\mathcal N$, $N$ | | the normal law; a count |
| $\nabla \log p$ | | a score |

| $k$ | | another table |
"""


def names(formula):
    return [name for name, _ in symbols(formula)]


def test_an_invented_page():
    rows = first_table(TABLE)
    good = r"""
    $$\hat x(x_t', t) = \frac{\nabla\log p(x_t)}{\sigma^2} - \tfrac12\,u_t \sim \mathcal N(0, 1),
    \qquad \text{for every film}, \quad N_\text{steps} = \operatorname{clip}(t) \tag{1}$$
    Free of rules: $$y = k q$$ and $\alpha$."""
    assert not list(problems("p", good, rows))
    for bad, said in [
        (r"y", "y is not in"),
        (r"k", "k is not in"),  # it stands in the second table only
        (r"\hat y", r"\hat y is not in"),
        (r"\hat\sigma", r"\hat \sigma is not in"),
        (r"\bar{x}", r"\bar x is not in"),
        (r"\alpha", r"\alpha is not in"),
        (r"\mathcal{U}", r"\mathcal U is not in"),
        (r"x_i", "i is not in"),
        (r"x^{\mathcal N, j}", "j is not in"),
        (r"u", "u without an index"),
        (r"u^2", "u without an index"),
        (r"\strange", r"\strange (neither operator nor letter) is not in"),
    ]:
        page = rf"Words. $$x = {bad} \tag{{2}}$$"
        found = list(problems("p", page, rows))
        assert len(found) == 1 and found[0].startswith(f"p, eq. (2): {said}"), (bad, found)


def test_what_is_a_symbol():
    assert names(r"\hat{\varepsilon} + \hat\varepsilon") == [r"\hat \varepsilon"] * 2
    assert names(r"\mathrm{Cov}(x_i, \text{a word})") == ["x", "i"]
    assert names(r"\begin{pmatrix} a \\ b \end{pmatrix}^\top") == ["a", "b"]
    assert names(r"\mathbb E\,|x|\;\mathbb{1}\{x \le 0\}") == [r"\mathbb E", "x", "x"]
    assert names(r"\underbrace{a}_{\text{mean}}\big(\tfrac{1}{2}e^{-c}\big)") == ["a", "e", "c"]
    assert list(symbols(r"u_t u' u'_s u {}_t")) == [
        *[("u", True), ("t", False), ("u", False), ("u", True), ("s", False), ("u", False)],
        ("t", False),
    ]


def test_the_table_is_read():
    rows = first_table(TABLE)
    assert len(rows) == 7 and rows[0] == "$x$, $x_t$"
    known, indexed = listed(rows)
    assert indexed == {"u"} and {"x", "t", r"\hat x", "p", r"\mathcal N", "N"} <= known
    assert entries([*rows, r"$\nabla  \log p$"]).count(r"\nabla \log p") == 2
    assert [tag for tag, _ in equations(r"$$a \tag{8b}$$ $$b$$ $$c\tag{9}$$")] == ["8b", "9"]


if __name__ == "__main__":
    for path in PAGES:
        for tag, formula in equations(text_of(path)):
            print(f"{path.stem} ({tag}):", *dict.fromkeys(name for name, _ in symbols(formula)))
    print()
    for path in PAGES:
        print(*problems(path.stem, text_of(path), table()), sep="\n")
