"""Docstring examples to asserts: doctests, `f(x) == y`, `f(x) -> y`, `f(x) should return y`,
`For a = 1 the output should be 2`, and `Input: a = 1` with `Output: 2`.

Only what the prompt shows is used. An example whose call or result is not a Python expression is
left out; a benchmark lists by name the examples that its own reference contradicts.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import re

_SEPARATOR = re.compile(
    r"^\s*(?:#\s*)?(?:(?:should\s+|would\s+|will\s+|must\s+)?(?:return|returns|be|is|equals?)\b\s*:?"
    r"|==>|=>|->|==|=|➞|→|➡|⇒|:)?\s*"
)
_NAMED = re.compile(r"\b(?:For\s+|Input:\s*)(?=\S)")
_RESULT = re.compile(r"\b(?:(?:output|result) should be|Output:)\s*:?\s*")
_WORDS = {"true": "True", "false": "False", "null": "None", "none": "None"}
_DOCSTRING = re.compile(r'("""|\'\'\')(.*?)\1', re.DOTALL)


def examples(prompt: str, entry_point: str) -> tuple[str, ...]:
    """Asserts for the prompt's examples of `entry_point`, in order, each once."""
    marker = prompt.rfind(f"def {entry_point}")
    docstrings = [m.group(2) for m in _DOCSTRING.finditer(prompt, marker)]
    text = docstrings[0] if docstrings else ""
    found: list[str] = []
    position = 0
    call = re.compile(rf"(?<![\w.]){re.escape(entry_point)}\s*\(")
    doctest = re.compile(r">>>[ \t]*")
    while (start := _next(call, doctest, text, position)) is not None:
        begin, is_doctest = start
        expression, end = _expression(text, begin)
        if expression is None:
            position = begin + 1
            continue
        position = end
        if entry_point not in expression or not _closed(expression, entry_point):
            continue
        made = _assert(expression, text[end:], is_doctest)
        if made is not None and made[0] not in found:
            found.append(made[0])
            position = end + made[1]
    for made_by_name in _named(text, entry_point):
        if made_by_name not in found:
            found.append(made_by_name)
    return tuple(found)


def _named(text: str, entry_point: str) -> list[str]:
    """Asserts for examples that name the arguments instead of writing the call."""
    found = []
    starts = list(_NAMED.finditer(text))
    for start, following in itertools.zip_longest(starts, starts[1:]):
        part = text[start.end() : following.start() if following else len(text)]
        result = _RESULT.search(part)
        if result is None:
            continue
        arguments = re.sub(r"\n\s*(\w+)\s*[:=]", r", \1=", part[: result.start()])
        arguments = re.sub(r"^(\w+)\s*:", r"\1=", arguments).strip().rstrip(",")
        expected = _literal(part[result.end() :].partition("\n")[0].strip())
        for end in range(len(arguments), 0, -1):
            call = _parsed(f"{entry_point}({arguments[:end].rstrip(' ,')})")
            if isinstance(call, ast.Call) and expected is not None and _is_literal(call):
                operator = "is" if expected in ("None", "True", "False") else "=="
                values = ", ".join(ast.unparse(a) for a in _values(call))
                found.append(f"assert {entry_point}({values}) {operator} {expected}")
                break
    return found


def _is_literal(call: ast.Call) -> bool:
    try:
        for value in _values(call):
            ast.literal_eval(value)
    except (ValueError, TypeError):
        return False
    return bool(_values(call))


def _values(call: ast.Call) -> list[ast.expr]:
    """Arguments in the order written: prompts do not always use the parameters' own names."""
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _next(
    call: re.Pattern[str], doctest: re.Pattern[str], text: str, position: int
) -> tuple[int, bool] | None:
    """Where the next example begins, and whether it is a doctest."""
    plain, prompt = call.search(text, position), doctest.search(text, position)
    if prompt and (not plain or prompt.end() <= plain.start()):
        return prompt.end(), True
    return (plain.start(), False) if plain else None


def _expression(text: str, begin: int) -> tuple[str | None, int]:
    """The call that starts at `begin`: up to the parenthesis that closes its first one."""
    line_end = text.find("\n", begin)
    line_end = len(text) if line_end < 0 else line_end
    opening = text.find("(", begin, line_end)
    for end in range(opening + 1, min(len(text), begin + 600)) if opening >= 0 else ():
        if text[end] == ")" and _parsed(text[begin : end + 1]) is not None:
            return _joined(text[begin : end + 1]), end + 1
    return None, begin


def _assert(expression: str, rest: str, is_doctest: bool) -> tuple[str, int] | None:
    """(assert, characters of `rest` used) for the result that follows a call."""
    line, _, following = rest.partition("\n")
    separator = _SEPARATOR.match(line)
    skipped = separator.end() if separator else 0
    marked = bool(line[:skipped].strip().lstrip("#"))
    shown = line[skipped:]
    used = skipped
    if is_doctest and (not line.strip() or line.lstrip().startswith("#")):
        shown, _, _ = following.partition("\n")
        used, marked = len(line) + 1, True
        if not shown.strip():
            shown = "None"  # a doctest that prints nothing
        elif shown.strip().startswith(">>>"):
            return None
    elif not marked and not (is_doctest and shown.strip()):
        return None
    shown = shown.strip()
    expected = _literal(shown)
    if expected is None and marked and shown and shown[0] in "[({":
        # a literal that goes on over the next lines
        expected = _literal(" ".join((shown, *following.split("\n")[:6])))
    if expected is None:
        return None
    operator = "is" if expected in ("None", "True", "False") else "=="
    return f"assert {expression} {operator} {expected}", used + 1


def _literal(shown: str) -> str | None:
    """The longest prefix of `shown` that is a Python literal, as written back by `ast`."""
    word = re.match(r"\w+", shown)
    if word and word.group() in _WORDS:
        return _WORDS[word.group()]
    for end in range(len(shown), 0, -1):
        piece = shown[:end].strip().rstrip(".,;")
        tree = _parsed(piece)
        if tree is None:
            continue
        try:
            ast.literal_eval(piece)
        except (ValueError, TypeError, SyntaxError, MemoryError):
            continue
        if shown[end:].lstrip()[:1] in tuple("+-*/%"):  # worked out in steps: 19 - 5 - 6 = 8
            _, equals, last = shown.rpartition("=")
            return _literal(last.strip()) if equals else None
        if shown[end : end + 1].isalnum():
            return None  # half a word
        return ast.unparse(tree)
    return None


def _closed(expression: str, entry_point: str) -> bool:
    """Whether every name in it is the entry point or a built-in."""
    names = {n.id for n in ast.walk(ast.parse(expression)) if isinstance(n, ast.Name)}
    return all(name == entry_point or hasattr(builtins, name) for name in names)


def _parsed(source: str) -> ast.expr | None:
    try:
        return ast.parse(_joined(source), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _joined(source: str) -> str:
    return " ".join(line.strip() for line in source.splitlines())
