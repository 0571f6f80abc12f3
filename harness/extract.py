"""Reply text to program: the last fenced block that defines the entry point, whole.

Rules: reasoning tags are dropped first; then the last fenced block that defines the entry point,
else all blocks together, else the reply itself; dedented, and everything at module level is kept
but a `__main__` guard. Linear in the length of the reply; one beyond `MOST_CHARS` holds no program.
Unlike the sanitizers of other harnesses nothing is dropped because of its shape: functions without
`return`, decorated and async functions, top-level `if` and `try` all stay.
"""

from __future__ import annotations

import ast
import re
import textwrap

MOST_CHARS = 1_000_000  # of a text that a program is looked for in: some seconds of parsing
TAIL_LINES = 40  # of a reply that was cut, that may be given up
TAIL_CHARS = 4_000_000  # parsed in all to find out how many

_REASONING = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.-]*)[^\n`]*$", re.MULTILINE)


def strip_reasoning(reply: str) -> str:
    """The reply without its reasoning, also where a template swallowed the opening tag."""
    kept: list[str] = []
    start, opened = 0, None
    for tag in _REASONING.finditer(reply):
        if not tag.group(1):
            if opened is None:
                kept.append(reply[start : tag.start()])
                start = opened = tag.start()
        else:
            if opened is None:
                kept.clear()
            start, opened = tag.end(), None
    return "".join((*kept, reply[start:]))


def fenced_blocks(reply: str) -> list[str]:
    """The contents of all fenced blocks in order; an unfinished last fence counts."""
    blocks: list[str] = []
    start: int | None = None
    fence = ""
    for match in _FENCE.finditer(reply):
        mark, language = match.groups()
        if start is None:
            start, fence = match.end() + 1, mark
        elif mark[0] == fence[0] and len(mark) >= len(fence) and not language:
            blocks.append(reply[start : match.start()])
            start = None
    if start is not None and reply[start:].strip():
        blocks.append(reply[start:])
    return [textwrap.dedent(block).strip("\n") for block in blocks]


def defines(code: str, name: str, *, imports: bool = True) -> bool:
    """Whether `code` parses and binds `name` at module level (def, class, assignment, import)."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = _module_level(tree.body)
    if not imports:
        nodes = [node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom)]
    return any(name in _bound(node) for node in nodes)


def code_block(reply: str, entry_point: str | None = None) -> str:
    """The program in a reply; empty when there is none that defines `entry_point`, or too long.

    Without an entry point: the last block that parses, else the last block, else the text.
    """
    if len(reply) > MOST_CHARS:
        return ""
    text = strip_reasoning(reply)
    blocks = [block for block in fenced_blocks(text) if block.strip()]
    if entry_point is None:
        parsing = [block for block in blocks if parses(block)]
        chosen = (parsing or blocks or [textwrap.dedent(text).strip("\n")])[-1]
        return _without_main(chosen)
    whole = textwrap.dedent(text).strip("\n")
    # a block that only imports the name is a test of the program more often than the program
    for imports in (False, True):
        for block in reversed(blocks):
            if defines(block, entry_point, imports=imports):
                return _without_main(block)
    for candidate in ("\n\n".join(blocks), _closed(blocks), whole):
        if candidate and defines(candidate, entry_point):
            return _without_main(candidate)
    # a program that does not parse is still the answer: its verdict says so
    named = re.compile(rf"^[ \t]*(?:async\s+)?def\s+{re.escape(entry_point)}\b", re.MULTILINE)
    for candidate in (*reversed(blocks), whole):
        if named.search(candidate):
            return candidate
    return ""


def _closed(blocks: list[str]) -> str:
    """The last block without its unfinished tail (a reply that was cut by the token limit)."""
    if not blocks:
        return ""
    lines = blocks[-1].splitlines()
    tries = min(TAIL_LINES, TAIL_CHARS // max(len(blocks[-1]), 1))
    for keep in range(len(lines) - 1, max(len(lines) - tries, 0), -1):
        candidate = "\n".join(lines[:keep])
        if parses(candidate):
            return candidate
    return ""


def parses(code: str) -> bool:
    """Whether a text is a Python program; what is too deep for the parser is none."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _module_level(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run at module level, those inside top-level if, try and with included."""
    found: list[ast.stmt] = []
    left = list(body)  # a chain of elif is as deep as it is long
    while left:
        node = left.pop()
        found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With):
            for handler in getattr(node, "handlers", []):
                left += handler.body
            for name in ("body", "orelse", "finalbody"):
                left += getattr(node, name, [])
    return found


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    names = (n for target in targets for n in ast.walk(target))
    return {n.id for n in names if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _names(expression: ast.expr, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(expression))


def _without_main(code: str) -> str:
    """The code without `if __name__ == "__main__":`, by line, so that all else stays as written."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    lines = re.split(r"\r\n|\r|\n", code)  # as the parser counts them
    for node in reversed(tree.body):
        if isinstance(node, ast.If) and _names(node.test, "__name__"):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).strip("\n")
