"""What the paper printed, as data: never measured here, never ranked with what was.

FlowReasoner, arXiv:2504.15257, tables 1 to 3. Each row says which version of the paper has it:
`V1` is the first one on arXiv, `LATER` the anonymous submission "Reinforcing Query-Level
Meta-Agents", whose table 1 has one row more. Figure 4 has no digits in the paper; what a blog
article gave for it stands in `rows` as `figure 4`, with how far it can be believed.

The paper does not say how many problems stand behind a column. 300, 131 and 341 (`PROBLEMS`) are
inferred: 131 and 341 are the test parts of AFlow's lists, and with them and 300 the mean over all
problems gives every printed Overall to 0.01 but one (`Overall.exact`).
Standard library only; numbers are facts and are kept as they were printed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

PROBLEMS: Mapping[str, int] = {"BigCodeBench": 300, "HumanEval": 131, "MBPP": 341}
COLUMNS = ("BigCodeBench", "HumanEval", "MBPP", "Overall")
PAPER = "FlowReasoner, arXiv:2504.15257"
BOTH = f"{PAPER}, version 1 and the later version"
LATER = f"{PAPER}, the later version only"
BLOG = "a Chinese blog article on FlowReasoner, not the paper"
ROUNDING = Decimal("0.01")  # what rounding three columns and their mean can come to

_INFERRED = (
    "the paper does not name this worker; it is inferred from its remark that automated baselines "
    "keep the configuration of MaAS, whose main table uses gpt-4o-mini"
)
_TRAINED = {"7b": "FlowReasoner-7B", "14b": "FlowReasoner-14B"}

# key: (type, method, worker, meta-agent, BigCodeBench, HumanEval, MBPP, Overall)
_TABLE_1: dict[str, tuple[str, str, str | None, str | None, str, str, str, str]] = {
    "vanilla_o1_mini":
        ("Vanilla", "o1-mini", "o1-mini", None, "57.67", "95.42", "74.19", "71.37"),
    "vanilla_gpt_4o_mini":
        ("Vanilla", "GPT-4o-mini", "gpt-4o-mini", None, "56.33", "88.55", "71.73", "68.60"),
    "self_refine_gpt_4o_mini":
        ("Manual", "Self-Refine", "gpt-4o-mini", None, "54.78", "89.83", "69.64", "67.29"),
    "llm_debate_gpt_4o_mini":
        ("Manual", "LLM-Debate", "gpt-4o-mini", None, "56.88", "91.64", "70.28", "68.69"),
    "llm_blender_gpt_4o_mini":
        ("Manual", "LLM-Blender", "gpt-4o-mini", None, "57.46", "89.44", "76.39", "71.25"),
    "self_refine_o1_mini":
        ("Manual", "Self-Refine", "o1-mini", None, "56.68", "94.74", "73.64", "70.63"),
    "llm_debate_o1_mini":
        ("Manual", "LLM-Debate", "o1-mini", None, "57.25", "95.83", "74.28", "71.33"),
    "llm_blender_o1_mini":
        ("Manual", "LLM-Blender", "o1-mini", None, "59.51", "96.37", "78.65", "74.22"),
    "autoagents": ("Auto", "AutoAgents", None, None, "56.65", "88.91", "72.03", "68.92"),
    "adas": ("Auto", "ADAS", None, None, "53.87", "84.26", "68.47", "65.48"),
    "aflow": ("Auto", "Aflow", None, None, "59.83", "94.15", "82.40", "75.63"),
    "maas": ("Auto", "MaAS", None, None, "60.33", "95.42", "84.16", "76.81"),
    "scoreflow": ("Auto", "ScoreFlow", None, None, "60.71", "95.67", "84.73", "77.25"),
    "flowreasoner_14b":
        ("Ours", "FlowReasoner-14B", "o1-mini", "FlowReasoner-14B (SFT+RL)",
         "63.53", "97.26", "92.15", "81.89"),
}  # fmt: skip
# key: (training, size, BigCodeBench, HumanEval, MBPP, Overall); the worker is o1-mini
_TABLE_2 = {
    "sft_7b": ("SFT", "7B", "61.79", "96.38", "87.22", "78.89"),
    "sft_rl_7b": ("SFT+RL", "7B", "62.78", "96.95", "89.86", "80.53"),
    "sft_14b": ("SFT", "14B", "62.83", "97.18", "91.91", "81.50"),
    "sft_rl_14b": ("SFT+RL", "14B", "63.53", "97.26", "92.15", "81.89"),
}
# (worker's key, worker, size): (BigCodeBench, HumanEval, MBPP); no Overall is printed
_TABLE_3 = {
    ("o1_mini", "o1-mini", "7b"): ("62.77", "96.95", "89.86"),
    ("o1_mini", "o1-mini", "14b"): ("63.53", "97.26", "92.15"),
    ("qwen2_5_coder_32b", "Qwen2.5Coder-32b", "7b"): ("50.17", "92.89", "80.40"),
    ("qwen2_5_coder_32b", "Qwen2.5Coder-32b", "14b"): ("52.67", "93.69", "78.90"),
    ("claude3_5", "Claude3.5", "7b"): ("60.67", "96.07", "87.63"),
    ("claude3_5", "Claude3.5", "14b"): ("61.12", "96.52", "89.82"),
    ("gpt_4o_mini", "GPT-4o-mini", "7b"): ("59.18", "94.24", "82.19"),
    ("gpt_4o_mini", "GPT-4o-mini", "14b"): ("59.75", "94.52", "82.27"),
}
# key: (worker, meta-agent, printed, what it is said to be, how far it can be believed)
_FIGURE_4 = {
    "open_meta": ("o1-mini", "open-source models", "53.85",
                  "an open-source meta-agent with o1-mini workers (figure 4a)",
                  "unverified: one number is given for all open-source models"),
    "claude_meta": ("o1-mini", "Claude 3.5", "61.12",
                    "Claude 3.5 as meta-agent with o1-mini workers (figure 4a)",
                    "doubtful: equals FlowReasoner-14B with Claude3.5 as worker in table 3"),
    "flowreasoner_14b": ("o1-mini", "FlowReasoner-14B", "63.53", "FlowReasoner-14B (figure 4a)",
                         "agrees with table 1"),
    "best_worker": ("o1-mini", "Claude 3.5", "97.26",
                    "the best worker, o1-mini, under Claude 3.5 as meta-agent (figure 4b)",
                    "almost certainly wrong: the HumanEval cell of FlowReasoner-14B, while "
                    "figure 4 is on BigCodeBench"),
}  # fmt: skip
_NOTES = {
    ("table 2", "sft_rl_7b", "BigCodeBench"): "62.77 in table 3",
    ("table 3", "o1_mini/flowreasoner_7b_sft_rl", "BigCodeBench"): "62.78 in table 2",
    ("table 1", "llm_debate_o1_mini", "Overall"):
        "71.32 by its three columns, which rounding cannot explain",
}  # fmt: skip

# (where, what): what the versions of the paper, and what others wrote of it, disagree on
DISCREPANCIES: tuple[tuple[str, str], ...] = (
    ("7B, SFT+RL, on BigCodeBench", "62.78 in table 2 and 62.77 in table 3, in both versions."),
    ("ScoreFlow", "Its row stands in the later version only."),
    ("LLM-Debate with o1-mini, Overall",
     "71.33 is printed; its columns give 71.319, a difference that rounding cannot explain."),
    ("the strongest baseline",
     "The later version still says that it is MaAS (76.81), which its own ScoreFlow row (77.25) "
     "is above: 4.64 points below FlowReasoner-14B, where the text says about 5."),
    ("model sizes",
     "Introduction and training section name a 7B base model only; tables 1 to 3 have 7B and 14B."),
    ("figure 4", "The text refers to it as figure 1. It has no digits, and those that a blog "
     "article gives contradict the paper's tables."),
    ("models of table 3", "Qwen2.5Coder-32b and Claude3.5 are printed without exact versions."),
    ("commentary on table 2", "A blog article says that 14B beats 7B on BigCodeBench by 0.72, and "
     "SFT+RL beats SFT at 14B by 1.39; the table has 0.75 (SFT+RL) or 1.04 (SFT), and 0.70 on "
     "BigCodeBench or 0.39 Overall."),
    ("commentary on table 1", "A blog article says 5 points over MaAS on BigCodeBench; the table "
     "has 3.20."),
    ("worker roles", "A blog article describes o1-mini drafting and GPT-4o-mini polishing inside "
     "the manual baselines; the paper says that each was run on its own as worker."),
    ("rows that a blog article leaves out", "It has six of the fourteen rows of table 1, and the "
     "four 7B rows of table 3."),
)  # fmt: skip

# (what differs, in the paper, here): what keeps reported and measured numbers apart
PROTOCOL: tuple[tuple[str, str, str], ...] = (
    ("problems", "131 of HumanEval, 341 of MBPP and 300 of BigCodeBench, inferred: the paper names "
     "neither its lists nor whether BigCodeBench was complete or instruct",
     "--list paper: AFlow's 131 and 341 and a seeded 300 (the same ids for complete and "
     "instruct, complete by default); full is all of a benchmark. The list is part of a row"),
    ("feedback", "a part of each problem's official tests steers the search; how large is not "
     "published, and the workflows in its figures read them; in the release the meta-agent gets "
     "only a score",
     "--protocol split: a stated third of the official tests is feedback and the rest is "
     "hidden; public, the default, gives only examples that the prompt shows"),
    ("what methods see", "MBPP's prompt has no example; baselines without tests guess at "
     "argument conventions, those with AFlow's public tests read one of the hidden asserts (422 "
     "of 427), FlowReasoner a part of the official tests",
     "every method has the same prompt and the same feedback tests; the level (L0 to L3) says what "
     "it did with them, and an overlap-free score leaves out what feedback repeats"),
    ("score", "probably a mean share of passed tests: 26 of the 51 distinct cells of tables 1 "
     "and 2 are no strict pass@1 of one to five runs on these problem counts, and the released "
     "scorer of BigCodeBench gives a share",
     "strict pass@1: one program a problem has to pass all hidden tests; shares are shown "
     "nowhere as a score"),
    ("worker", "o1-mini for FlowReasoner and the manual baselines; automated baselines probably "
     "gpt-4o-mini. With GPT-4o-mini workers (table 3) FlowReasoner-14B's three columns come to "
     "75.60, below MaAS (76.81) and ScoreFlow (77.25)",
     "a row names its worker, and significance is tested under one worker"),
    ("repeats", "not stated; three executions of each workflow in the release",
     "samples a problem are stated, and intervals are over problems"),
    ("final answer", "the best workflow is executed again, three times",
     "final=keep (default) keeps the program that the feedback was for; preset=paper and "
     "preset=release run it again"),
    ("Overall", "printed; the mean over all problems of the three benchmarks reproduces it",
     "recomputed in the same way from the problems of the three runs"),
    ("models", "o1-mini-2024-09-12 as worker, checkpoints of 7B and 14B as meta-agent; neither "
     "weights nor training data are released",
     "any model; the row names it, and the ids that the server reported are in the journal"),
)  # fmt: skip


@dataclass(frozen=True)
class Overall:
    """A printed Overall beside the mean over all problems of its three columns, in percent."""

    place: str  # "table 1"
    row_key: str
    printed: Decimal
    recomputed: Decimal

    @property
    def difference(self) -> Decimal:
        """Printed less recomputed."""
        return self.printed - self.recomputed

    @property
    def exact(self) -> bool:
        """Whether rounding explains the difference."""
        return abs(self.difference) <= ROUNDING


def rows() -> list[dict[str, Any]]:
    """Every printed number as a row of the store's table `reported`; `value` is a share."""
    found = []
    for place, key, head, cells in _cells():
        for benchmark, printed in cells:
            special = _NOTES.get((place, key, benchmark))
            note = "; ".join(x for x in (head["note"], special) if x) or None
            told = head | {"place": place, "row_key": key, "benchmark": benchmark, "note": note}
            found.append(told | {"value": float(Decimal(printed) / 100), "printed": printed})
    return found


def _cells() -> Iterator[tuple[str, str, dict[str, Any], tuple[tuple[str, str], ...]]]:
    """(place, row key, columns of the row, (benchmark, printed) of each of its cells)."""
    for key, (kind, method, worker, meta, *printed) in _TABLE_1.items():
        source = LATER if key == "scoreflow" else BOTH
        note = _INFERRED if worker is None else None
        head = _head(source, kind, method, worker, meta, note)
        yield "table 1", key, head, tuple(zip(COLUMNS, printed, strict=True))
    for key, (training, size, *printed) in _TABLE_2.items():
        meta = f"FlowReasoner-{size} ({training})"
        head = _head(BOTH, training, f"FlowReasoner-{size}", "o1-mini", meta, None)
        yield "table 2", key, head, tuple(zip(COLUMNS, printed, strict=True))
    for (key, worker, size), three in _TABLE_3.items():
        name = _TRAINED[size]
        head = _head(BOTH, "Ours", name, worker, f"{name} (SFT+RL)", None)
        cells = tuple(zip(COLUMNS, three, strict=False))
        yield "table 3", f"{key}/flowreasoner_{size}_sft_rl", head, cells
    for key, (worker, meta, number, claim, trust) in _FIGURE_4.items():
        head = _head(BLOG, "secondary claim", "FlowReasoner", worker, meta, f"{claim}: {trust}")
        yield "figure 4", key, head, (("BigCodeBench", number),)


def _head(
    source: str, kind: str, method: str, worker: str | None, meta: str | None, note: str | None
) -> dict[str, Any]:
    return {"source": source, "type": kind, "method": method, "worker": worker, "meta": meta,
            "note": note}  # fmt: skip


def micro(percent: Mapping[str, Decimal]) -> Decimal:
    """The mean over all problems of the three columns: weights are `PROBLEMS`."""
    return sum(n * percent[name] for name, n in PROBLEMS.items()) / Decimal(sum(PROBLEMS.values()))


def overalls() -> list[Overall]:
    """Each printed Overall, beside what its columns come to."""
    found = []
    for place, key, _, cells in _cells():
        percent = {name: Decimal(printed) for name, printed in cells}
        if "Overall" in percent:
            found.append(Overall(place, key, percent["Overall"], micro(percent)))
    return found


def pass_counts(printed: str, problems: int, most_runs: int = 5) -> list[tuple[int, int]]:
    """(passes, samples) that a strict pass@1 in percent, averaged over 1 to `most_runs` runs, has.

    Empty: no number of solved problems gives what was printed (to half of its last digit).
    """
    wanted = Decimal(printed)
    half = Decimal(1).scaleb(int(wanted.as_tuple().exponent)) / 2
    found = []
    for runs in range(1, most_runs + 1):
        samples = problems * runs
        near = int(wanted * samples / 100)
        found += [
            (passes, samples)
            for passes in (near, near + 1)
            if abs(Decimal(100 * passes) / samples - wanted) <= half
        ]
    return found


def no_strict_score() -> list[tuple[str, str, str]]:
    """(place, row key, benchmark) of tables 1 and 2 that no strict pass@1 of 1 to 5 runs gives."""
    return [
        (place, key, name)
        for place, key, _, cells in _cells()
        if place in ("table 1", "table 2")
        for name, printed in cells
        if name in PROBLEMS and not pass_counts(printed, PROBLEMS[name])
    ]


VERSION = hashlib.sha256(json.dumps(rows(), sort_keys=True).encode()).hexdigest()
