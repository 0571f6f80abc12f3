"""What HumanEval+ and MBPP+ share. Liu et al. 2023, arXiv:2305.01210; rules of evalplus 0.3.1.

A solution has to return on each input what the reference returns, `base_input` being the original
benchmark's and `plus_input` EvalPlus's. Some tasks are judged by a rule of their own (`RULES`),
after evalplus 0.3.1 `eval/__init__.py`; `harness/guest/cases.py` says what each rule does.
Limits: per input 1 s, or four times the reference's time if that is more; 60 s in all.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from harness.benchmarks.source import Row
from harness.types import Cases, Oracle

FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("task_id", "prompt", "entry_point", "canonical_solution"), str),
    "base_input": list,
    "plus_input": (list, dict),  # {} where MBPP+ has none
    "atol": (int, float),
}
TIMEOUT_S = 60.0
CASE_S = 1.0
_SET = "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum"
_SET += " intersection_array find_dissimilar Diff"
RULES = {  # entry point -> rule; all others are "equal"
    "humaneval": {"find_zero": "find_zero"},  # 32
    "mbpp": {
        "are_equivalent": "any",  # 164
        "sum_div": "sum_div",  # 295
        "surface_Area": "surface_area",  # 581
        "digit_distance_nums": "digit_distance",  # 558
        **dict.fromkeys(_SET.split(), "set"),  # 2, 7, 111, 140, 232, 249, 579, 769
        **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "not_none"),
    },
}


def oracle(row: Row, line: bytes, family: str) -> Oracle:
    """The hidden side of one row; `line`, its JSON text, is parsed whenever inputs are asked."""
    rule = RULES[family].get(row["entry_point"], "equal")
    number = int(row["task_id"].rpartition("/")[2]) if family == "mbpp" else None
    cases = Cases(
        inputs=functools.partial(inputs, line, number),
        digest=hashlib.sha256(f"{family} {rule} {CASE_S}\n".encode() + line).hexdigest(),
        atol=float(row["atol"]),
        rule=rule,
        case_s=CASE_S,
    )
    return Oracle(cases, row["prompt"] + row["canonical_solution"], timeout_s=TIMEOUT_S)


def inputs(line: bytes, mbpp_task: int | None) -> tuple[list[Any], list[Any]]:
    """(base, plus) of a row: one list of arguments per input. MBPP's JSON has lost its types."""
    row = json.loads(line)
    base, plus = row["base_input"], list(row["plus_input"])
    if mbpp_task is None:
        return base, plus
    return [_typed(i, mbpp_task) for i in base], [_typed(i, mbpp_task) for i in plus]


# Argument types by task, after evalplus 0.3.1 `data/mbpp.py`.
_TUPLES = {2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630}
_TUPLES |= {726, 740, 744, 809}
_LISTS_OF_TUPLES = {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}
_LIST_OF_TUPLES_FIRST = {75, 413, 444, 753}
_TUPLE_FIRST = {250, 405, 446, 617, 720, 763, 808, 307}
_TUPLE_SECOND = {106, 750}
_TUPLES_OF_TUPLES = {259, 401, 445}
_ALL_TUPLES = {580, 615, 791}


def _typed(given: list[Any], task: int) -> list[Any]:
    """The arguments of one input with the types that the reference expects."""
    first, rest = given[0] if given else None, given[1:]
    if task in _TUPLES:
        return [tuple(argument) for argument in given]
    if task in _LISTS_OF_TUPLES:
        return [[tuple(part) for part in argument] for argument in given]
    if task in _LIST_OF_TUPLES_FIRST:
        return [[tuple(part) for part in given[0]], *rest]
    if task in _TUPLE_FIRST:
        return [tuple(given[0]), *rest]
    if task in _TUPLE_SECOND:
        return [first, tuple(given[1])]
    if task in _TUPLES_OF_TUPLES:
        return [tuple(tuple(part) for part in argument) for argument in given]
    if task in _ALL_TUPLES:
        return [_all_tuples(argument) for argument in given]
    if task == 115:  # sets in a list; an empty list stands for an empty dict
        return [[set(part) if isinstance(part, list) and part else {} for part in given[0]]]
    if task == 124:
        return [float(given[0]), complex(given[1])]
    if task == 252:
        return [complex(given[0])]
    if task == 278:
        return [tuple(tuple(part) if isinstance(part, list) else part for part in given[0])]
    if task == 722:
        return [{key: tuple(value) for key, value in given[0].items()}, *rest]
    return given


def _all_tuples(value: Any) -> Any:
    return tuple(_all_tuples(part) for part in value) if isinstance(value, list) else value
