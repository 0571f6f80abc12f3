"""Programs out of replies as models write them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable

import pytest

from harness.extract import MOST_CHARS, code_block, defines, fenced_blocks, strip_reasoning

F = "def f(x):\n    return x"


def fenced(code: str, language: str = "python", mark: str = "```") -> str:
    return f"{mark}{language}\n{code}\n{mark}"


REPLIES: dict[str, str] = {
    "a block": fenced(F),
    "prose around it": f"Here you are:\n\n{fenced(F)}\n\nThis returns `x` itself, in O(1).",
    "no fence at all": F,
    "no fence, indented": "    def f(x):\n        return x",
    "no language": fenced(F, ""),
    "another spelling of the language": fenced(F, "py3"),
    "a space before the language": fenced(F, " python"),
    "words after the language": fenced(F, 'python title="f.py"'),
    "tildes": fenced(F, mark="~~~"),
    "four back-ticks": fenced(F, mark="````"),
    "unfinished fence": f"```python\n{F}",
    "a usage block after it": f"{fenced(F)}\nUse it so:\n{fenced('print(f(1))')}",
    "a test block after it": f"{fenced(F)}\n{fenced('from solution import f' + chr(10) + 'f(1)')}",
    "a draft before it": f"{fenced('def f(x): pass')}\nBetter:\n{fenced(F)}",
    "output after it": f"{fenced(F)}\nIt prints\n{fenced('1' + chr(10) + '2', '')}",
    "a list item": f"1. First\n\n   ```python\n   {F.replace(chr(10), chr(10) + '   ')}\n   ```\n",
    "reasoning with a draft": f"<think>\n{fenced('def f(x): pass')}\n</think>\n{fenced(F)}",
    "reasoning without its opening tag": f"{fenced('def f(x): pass')}\n</think>\n{fenced(F)}",
    "other reasoning tags": f"<Thinking>def f</Thinking><reasoning>x</reasoning>\n{fenced(F)}",
    "reasoning after the answer": f"{fenced(F)}\n<think>{fenced('def f(x): pass')}</think>",
    "a main guard": fenced(f"{F}\n\nif __name__ == '__main__':\n    print(f(1))\nelse:\n    pass"),
    "a text in back-ticks at the start of a line": f"```f``` it is:\n{fenced(F)}",
}


@pytest.mark.parametrize("name", REPLIES)
def test_the_program_is_found_in_a_reply(name: str) -> None:
    assert code_block(REPLIES[name], "f") == F


@pytest.mark.parametrize("name", [n for n in REPLIES if "after" not in n and "draft" not in n])
def test_the_program_is_found_without_its_name_too(name: str) -> None:
    assert code_block(REPLIES[name]) == F


KEPT = {
    "imports": "import math\nfrom typing import List\n\n" + F,
    "a decorated function": "import functools\n\n@functools.cache\n" + F,
    "an async function": "async def f(x):\n    return x",
    "a function without return": "def f(x):\n    x.sort()",
    "a generator": "def f(x):\n    yield x",
    "helpers that nothing seems to use": F + "\n\ndef _unused():\n    pass",
    "statements at module level": "TABLE: dict[int, int] = {}\nfor n in range(3):\n"
    "    TABLE[n] = n\n\n" + F,
    "top-level if and try": "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n"
    "if numpy:\n    x = 1\n\n" + F,
    "a definition under try": "try:\n    import fast as f\nexcept ImportError:\n    def f(x):\n"
    "        return x",
    "a class and its method under a name": "class S:\n    def solve(self, x):\n        return x\n\n"
    "f = S().solve",
    "names bound together": "f, g = (lambda x: x), 1",
    "a callable class": "class f:\n    pass",
    "an imported function": "from math import gcd as f",
    "a fence in a docstring": 'def f(x):\n    """As\n\n    >>> f(1)\n    1\n    """\n    return x',
    "odd characters in a text": "S = 'a\x0cb\x85c\u2028d'\n\n" + F,
    "comments": "# one\n" + F + "  # two",
    "a star and a walrus": "(y := 1)\n*a, f = [1, abs]",
}


@pytest.mark.parametrize("name", KEPT)
def test_everything_at_module_level_is_kept_as_written(name: str) -> None:
    assert code_block(f"Sure.\n{fenced(KEPT[name])}\nDone.", "f") == KEPT[name]


def test_windows_lines_are_read() -> None:
    found = code_block(fenced(F).replace("\n", "\r\n"), "f")
    assert found.split() == F.split()
    assert defines(found, "f")


def test_a_guard_goes_whatever_stands_in_the_texts_before_it() -> None:
    program = f"S = 'a\x0cb\u2028c'\n{F}"
    guarded = f"{program}\n\nif __name__ == '__main__':\n    f(1)\n    f(2)\n"
    assert code_block(fenced(guarded), "f") == program


def test_a_fence_inside_a_longer_fence_is_content() -> None:
    inner = fenced("def f(x): pass")
    program = f'DOC = """\n{inner}\n"""\n\n{F}'
    assert fenced_blocks(fenced(program, mark="````")) == [program]
    assert code_block(fenced(program, mark="````"), "f") == program


def test_a_class_that_only_holds_the_function_is_returned_for_the_grader_to_refuse() -> None:
    program = "class Solution:\n    def f(self, x):\n        return x"
    assert not defines(program, "f")
    assert code_block(fenced(program), "f") == program


def test_blocks_that_belong_together_are_joined() -> None:
    first, second = "try:\n    from fast import f", "except ImportError:\n    f = abs"
    reply = f"{fenced(first)}\nor else\n{fenced(second)}"
    assert defines(code_block(reply, "f"), "f")


def test_a_reply_cut_in_its_last_statement_keeps_what_is_whole() -> None:
    cut = f"```python\n{F}\n\nprint(f(1), f("
    assert code_block(cut, "f") == F


def test_a_program_that_does_not_parse_is_still_the_answer() -> None:
    broken = "def f(x)\n    return x"
    assert code_block(fenced(broken), "f") == broken


@pytest.mark.parametrize("reply", ["", "   \n", "I cannot.", fenced("x = 1"), "```", "<think>x"])
def test_a_reply_without_the_function_has_no_program(reply: str) -> None:
    assert code_block(reply, "f") == ""


def test_reasoning_goes_and_the_rest_stays() -> None:
    assert strip_reasoning("a<think>b</think>c<think>d</think>e") == "ace"
    assert strip_reasoning("a</think>b") == "b"
    assert strip_reasoning("<think>a<think>b</think>c</think>d") == "d"
    assert strip_reasoning("a <think> of it") == "a <think> of it"


DEEP = {
    "a test of many nots": "if " + "not " * 1200 + "1:\n    pass",
    "a chain of elif": "if 0:\n    pass\n" + "elif 0:\n    pass\n" * 1500 + "else:\n    pass",
    "a chain of attributes": "if a" + ".b" * 3000 + ":\n    pass",
    "a long sum": "if " + " + ".join("1" * 3000) + ":\n    pass",
    "brackets without end": "x = " + "(" * 100_000,
    "lists in lists": "x = " + "[" * 150 + "]" * 150,
}


@pytest.mark.parametrize("name", DEEP)
def test_a_program_nested_as_deep_as_can_be_is_read_and_ends_nothing(name: str) -> None:
    program = f"{F}\n{DEEP[name]}"
    # what the parser gives up on is a cut reply's tail
    assert code_block(fenced(program), "f") in (program, F)
    assert code_block(fenced(program)) == program


def test_a_name_at_the_end_of_a_long_chain_is_found() -> None:
    chain = "if 0:\n    pass\n" + "elif 0:\n    pass\n" * 1500 + "else:\n    def f(x): pass"
    assert defines(chain, "f")


def test_only_a_test_of_the_name_itself_is_a_main_guard() -> None:
    program = f"{F}\nif x == '__name__':\n    f(1)"
    assert code_block(fenced(program), "f") == program
    assert code_block(fenced(f"{F}\nif '__main__' == __name__ and 1:\n    f(1)"), "f") == F


def test_a_text_longer_than_any_reply_holds_no_program() -> None:
    short = fenced(F)
    padding = MOST_CHARS - len(short)
    assert code_block(short + " " * padding, "f") == F
    assert code_block(short + " " * (padding + 1), "f") == ""
    assert code_block("x" * (MOST_CHARS + 1)) == ""


def calls(work: Callable[[], object], of: object = None) -> int:
    """Python and C calls that `work` makes, or those of one C function: its steps, not its time."""
    count = 0

    def step(frame: object, event: str, what: object) -> None:
        nonlocal count
        count += of is None or (event == "c_call" and what is of)

    sys.setprofile(step)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


LONG: dict[str, Callable[[int], str]] = {
    "a long program": lambda n: fenced(f"{F}\n" + "x = 1\n" * n),
    "long prose": lambda n: "It is so.\n" * n + fenced(F),
    "many blocks": lambda n: (fenced("x = 1") + "\n") * (n // 3) + fenced(F),
    "a long program that is cut": lambda n: f"```python\n{F}\n" + "x = 1\n" * n + "x = (",
}


@pytest.mark.parametrize("name", LONG)
def test_steps_grow_no_faster_than_the_reply(name: str) -> None:
    small, large = (LONG[name](n) for n in (2_000, 20_000))
    assert defines(code_block(large, "f"), "f")
    ratio = calls(lambda: code_block(large, "f")) / calls(lambda: code_block(small, "f"))
    assert ratio < 12


@pytest.mark.timeout(20)  # a pattern that is tried anew from each line would take many minutes
@pytest.mark.parametrize(
    "line", ["", "<think>", "</think>", "```", "`" * 50, " " * 50, "~~~ a", "def f(", "\t"]
)
def test_fifty_thousand_lines_of_anything_are_read(line: str) -> None:
    found = code_block((line + "\n") * 50_000 + fenced(F, mark="~" * 60), "f")
    assert isinstance(found, str)


def test_a_long_program_that_is_cut_is_not_parsed_over_and_over() -> None:
    cut = f"```python\n{F}\n" + "x = 1\n" * 100_000 + "x = (\n" * 50
    assert calls(lambda: code_block(cut, "f"), of=compile) < 15
    assert calls(lambda: ast.parse("x = 1"), of=compile) == 1  # what is counted above
