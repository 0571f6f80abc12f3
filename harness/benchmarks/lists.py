"""Published lists of problems: `full`, `paper`, `search` and `train`, by the ids of a benchmark.

HumanEval and MBPP: `search` is AFlow's validation part (Zhang et al. 2024, arXiv:2410.10762),
`paper` is all the rest that AFlow has: 131 and 341 problems. BigCodeBench: no list of 300 was
ever published, so this one is ours: tasks in the order of SHA-256("42/<task id>"); the first 300
are `paper`, the next 228 (20 % of 1,140) that are not in BigCodeBench-Hard are `search`. `train`
is what is in neither `paper` nor BigCodeBench-Hard; it contains `search`. Suites that share ids
share lists, as far as they have the problems; a list that would be empty is not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

SEED = 42
PAPER_TASKS, SEARCH_TASKS = 300, 228


def numbers(text: str) -> frozenset[int]:
    """{1, 5, 6, 7} of "1 5-7"."""
    ends = [part.partition("-") for part in text.split()]
    return frozenset(n for low, _, high in ends for n in range(int(low), int(high or low) + 1))


HUMANEVAL_SEARCH = numbers(
    "9 12 15 16 18 19 24 29-31 51 55 56 60 66 75 78 85 95 98 101 105 115 131 132 134 135 139 145 "
    "152 155 157 160"
)
MBPP_SEARCH = numbers(
    "2 14 56 58 61 64 66 67 72 77 85 88 92 101-103 120 124 125 127-131 135 145 162 163 223 234 "
    "238 248 250 267 268 272 276 280 283 295 305 308-310 389 392 400 404 406 408 419 432 437 451 "
    "463 556 562 566 568 573 574 577 591 615 629 726 728 736 740 745 751 752 754-756 765 769 777 "
    "783 791 798 799 801 802 805 806"
)
MBPP_SANITIZED = numbers(
    "2-4 6-9 11 12 14 16-20 56-59 61-72 74 75 77 79 80 82-106 108 109 111 113 115-120 123-133 135 "
    "137-143 145 160-168 170-172 222-224 226-230 232-235 237-240 242 244-253 255-257 259-262 "
    "264-274 276-287 290-297 299-301 304-312 388-401 404-415 417-422 424-448 450-465 468 470-479 "
    "554-560 562-569 572-574 576-600 602-608 610-612 614-620 622-633 635 637-641 643 644 720-726 "
    "728 730-760 762-767 769-773 775-788 790-794 796-809"
)
BIGCODEBENCH_TASKS = 1140
BIGCODEBENCH_HARD = numbers(
    "13 15 17 19 34 37 82 89 92 93 99-101 108 120 123 124 129 139 147 161 162 177 184 187 199 208 "
    "211 214 227 239 241 267 273 274 287 302 308 310 313 324 326 341 346 360 367 368 374 399 401 "
    "409 417 418 424 443 445 454 458 461 477 486 492 501-503 509 511 513 526 528 530 532 553 560 "
    "567 574 579 582 583 587 590 592-594 618 636 637 654 655 657 678 720 723 752 760 763 765 771 "
    "777 785 800 826 845 854 857 865 870 879 897 906 914-917 928 942 945 952 955 963 964 969 971 "
    "985 988 990 998 999 1003 1004 1006 1008 1012 1013 1015 1019 1020 1022 1039 1040 1042 1053 "
    "1057 1077 1085 1124 1129 1137"
)


def humaneval(ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Lists of HumanEval and HumanEval+ problems."""
    search = {f"HumanEval/{n}" for n in HUMANEVAL_SEARCH}
    full = tuple(ids)
    return _lists(full, paper=set(full) - search, search=search)


def mbpp(ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Lists of the MBPP suites. AFlow's parts are of the 427 sanitized problems."""
    search = {f"Mbpp/{n}" for n in MBPP_SEARCH}
    paper = {f"Mbpp/{n}" for n in MBPP_SANITIZED - MBPP_SEARCH}
    return _lists(tuple(ids), paper=paper, search=search)


def bigcodebench(ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Lists of BigCodeBench suites, the same for `complete` and `instruct`."""
    tasks = (f"BigCodeBench/{n}" for n in range(BIGCODEBENCH_TASKS))
    order = sorted(tasks, key=lambda task: hashlib.sha256(f"{SEED}/{task}".encode()).digest())
    hard = {f"BigCodeBench/{n}" for n in BIGCODEBENCH_HARD}
    search = [task for task in order[PAPER_TASKS:] if task not in hard][:SEARCH_TASKS]
    return _lists(tuple(ids), paper=set(order[:PAPER_TASKS]), search=set(search), never=hard)


def _lists(
    full: tuple[str, ...], *, paper: set[str], search: set[str], never: Iterable[str] = ()
) -> dict[str, tuple[str, ...]]:
    kept_from_training = paper | set(never)
    lists = {
        "full": full,
        "paper": tuple(i for i in full if i in paper),
        "search": tuple(i for i in full if i in search),
        "train": tuple(i for i in full if i not in kept_from_training),
    }
    return {name: ids for name, ids in lists.items() if ids or name == "full"}
