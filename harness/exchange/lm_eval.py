"""lm-evaluation-harness: `results_*.json` and the `samples_TASK_*.jsonl` beside it. In only.

lm-eval 0.4.13 `loggers/evaluation_tracker.py`, `evaluator.py`. Each task with samples is a run; a
row is one problem with all its repeats: `resps` and `filtered_resps` of its one request, and a
metric, the share of them that passed. Where only some of several passed, the file does not say
which, so that problem's samples keep their number of passes and are without their programs.

1.0 is `passed` and 0.0 `wrong`: lm-eval does not say why. It counts no tokens, prices or seconds of
a request. Of the configuration only what is named here is kept: `model_args` may hold a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.exchange.foreign import Call, Fields, Log, Row, json_lines, parsed, read_bytes
from harness.exchange.wishes import Wish
from harness.page import things
from harness.types import Message, Verdict

METRICS = ("pass@1", "pass_at_1")
BENCHMARKS = {
    **dict.fromkeys(("humaneval", "humaneval_instruct", "humaneval_64", "humaneval_64_instruct"),
                    "humaneval"),
    "humaneval_plus": "humaneval+",
    **dict.fromkeys(("mbpp", "mbpp_instruct"), "mbpp-full"),  # its 500 test problems
    **dict.fromkeys(("mbpp_plus", "mbpp_plus_instruct"), "mbpp+"),
}  # fmt: skip
IDS = ("task_id", "problem_id", "id", "question_id")
TEXTS = ("prompt", "text")
STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl?$")


def read(path: Path, wish: Wish) -> Iterator[Log]:
    """A run for each task of a results file, or of one samples file. Raises UsageError."""
    stamp = STAMP.search(path.name)
    if path.suffix == ".jsonl":
        results = path.with_name(f"results_{stamp[1]}.json") if stamp else None
        found = results if results is not None and results.is_file() else None
        name = path.name.removeprefix("samples_")
        task = name[: -len(stamp[0])] if stamp else name.removesuffix(".jsonl")
        yield _task(task, path, found, _head(found), wish)
        return
    head = _head(path)
    tasks = {
        task: beside
        for task in head.inside("results").found
        if stamp and (beside := path.with_name(f"samples_{task}_{stamp[1]}.jsonl")).is_file()
    }
    without = [task for task in head.inside("results").found if task not in tasks]
    if not tasks:
        raise UsageError(
            f"{path}: has only means, and no samples_*.jsonl of its date beside it; run lm-eval "
            "with --log_samples"
        )
    if without:
        wish.say(f"{path.name}: left out, since it has no samples: {', '.join(without)}")
    for task, samples in tasks.items():
        yield _task(task, samples, path, head, wish)


def _head(path: Path | None) -> Fields:
    if path is None:
        return Fields({}, "no results file")
    return Fields(parsed(read_bytes(path), str(path)), str(path))


def _task(task: str, samples: Path, beside: Path | None, head: Fields, wish: Wish) -> Log:
    config = head.inside("config")
    counts = head.inside("n-samples").inside(task)
    source, model = head.text("model_source"), head.text("model_name")
    return Log(
        tool="lm-eval",
        version=head.text("lm_eval_version"),
        file=samples,
        rows=lambda: _rows(samples, model, wish),
        benchmark=BENCHMARKS.get(task, task),
        worker=model,
        simulated=source == "dummy",
        started_at=head.number("date"),
        companions=(beside,) if beside is not None else (),
        said={
            "task": task,
            "model_source": source,
            "git_hash": head.text("git_hash"),
            "task_hash": head.inside("task_hashes").text(task),
            "task_version": head.inside("versions").found.get(task),
            "n_shot": head.inside("n-shot").found.get(task),
            "limit": config.found.get("limit"),
            "n_samples": {
                "original": counts.whole("original"),
                "effective": counts.whole("effective"),
            },
        },
        head={"seed": config.seed("random_seed")},
    )


def _rows(path: Path, model: str | None, wish: Wish) -> Iterator[Row]:
    chosen, others = None, 0
    for where, found in json_lines(path):
        row = Fields(found, where)
        name = row.text("filter")
        chosen = name if chosen is None else chosen
        if name != chosen:  # the same replies once more, read otherwise
            others += 1
            continue
        yield from _samples(row, model)
    if others:
        wish.say(f"{path.name}: {things(others, 'row')} of other filters than {chosen} left out")


def _samples(row: Fields, model: str | None) -> Iterator[Row]:
    doc = row.inside("doc")
    problem_id = next((doc.found[n] for n in IDS if isinstance(doc.found.get(n), str | int)), None)
    if problem_id is None:
        problem_id = row.whole("doc_id")
    if problem_id is None:
        raise row.wrong("doc", f"an object with one of {', '.join(IDS)}")
    metric = next((n for n in METRICS if row.found.get(n) is not None), None)
    if metric is None:
        known = ", ".join(map(str, row.several("metrics"))) or "none"
        raise UsageError(f"{row.where}: expected a metric pass@1, found {known}")
    share = row.number(metric)
    replies, programs = _only(row, "resps"), _only(row, "filtered_resps")
    draws = len(replies)
    passed = None if share is None else share * draws
    if passed is None or abs(passed - round(passed)) > 1e-6 or not 0 <= round(passed) <= draws:
        raise row.wrong(metric, f"the share of {draws} samples that passed")
    certain = round(passed) in (0, draws)
    some = "" if certain else f"{round(passed)} of {draws} passed; the file does not say which"
    text = next((doc.text(n) for n in TEXTS if doc.text(n)), None)
    messages, sampling = _request(row)
    for number, reply in enumerate(replies):
        solved = number < round(passed)
        program = programs[number] if len(programs) == draws else None
        yield Row(
            problem_id=problem_id,
            verdict=Verdict.PASSED if solved else Verdict.WRONG,
            where=row.where,
            detail=some,
            solution=program if certain and isinstance(program, str) else None,
            calls=1,
            task_text=text,
            trajectory=(
                Call(
                    model=model,
                    messages=messages,
                    reply=reply if isinstance(reply, str) else None,
                    temperature=sampling.number("temperature"),
                    max_tokens=sampling.whole("max_gen_toks"),
                ),
            ),
            official=None if certain else {"passed": round(passed), "programs": programs},
        )


def _only(row: Fields, name: str) -> list[Any]:
    """The repeats of a problem's one request."""
    found = row.several(name)
    if name == "filtered_resps" and found and all(isinstance(x, str) for x in found):
        return found
    if len(found) != 1:
        raise UsageError(f"{row.where}: {name}: expected those of one request, found {len(found)}")
    return found[0] if isinstance(found[0], list) else found


def _request(row: Fields) -> tuple[list[Message] | None, Fields]:
    """(messages, sampling) of a problem's request."""
    asked = row.inside("arguments").inside("gen_args_0")
    prompt = asked.found.get("arg_0")
    prompt = prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    sampling = (
        asked.inside("arg_1")
        if isinstance(asked.found.get("arg_1"), dict)
        else Fields({}, row.where)
    )
    if not isinstance(prompt, str):
        return None, sampling
    try:  # with a chat template for a server, the messages as JSON
        chat = json.loads(prompt) if prompt.startswith("[{") else None
    except ValueError:
        chat = None
    if isinstance(chat, list) and all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in chat
    ):
        return [Message(role=m.get("role", "user"), content=m["content"]) for m in chat], sampling
    return [Message(role="user", content=prompt)], sampling
