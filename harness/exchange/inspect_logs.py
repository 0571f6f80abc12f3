"""Inspect's logs: `.eval` (zip) and `.json` in, `.eval` out.

inspect_ai 0.3.285, log version 2. In an `.eval`, `header.json` says what was evaluated and
`samples/ID_epoch_N.json` holds one sample each; a log whose writer was killed has
`_journal/start.json` in place of the header. A sample may also lie in pieces under
`samples/ID_epoch_N/`. Texts that stand as `attachment://...` are in the sample's `attachments`,
messages that a model event names by `input_refs` in its `events_data`.

In: the value of the first scorer ("C" and 1 are `passed`, "N" `no_code`, all else `wrong`; Inspect
does not say why), `scores.answer` as the program, model events as calls. A sample with an error, or
without a score, is `invalid`. Inspect counts a prompt's cached tokens apart; ours are the sum.
The problem's hidden tests, which Inspect keeps as target and metadata, are not taken over, nor
arguments of model or task, which may hold a key.

Out: what Inspect has no place for stands in `metadata.harness` of the log, of each sample and of
each model event, and is read back from there: ours -> Inspect -> ours loses nothing that a journal
says of verdicts, tokens, prices and calls. Rounds, feedback and workflow runs are `info` events.
Nothing is written that is not in the journal: no hidden test, no target.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from harness import __version__
from harness.benchmarks import ALIASES, REGISTRY
from harness.errors import UsageError
from harness.exchange.files import new_path
from harness.exchange.foreign import Call, Fields, Log, Row, parsed, read_bytes
from harness.exchange.ours import Run, Sample, samples_of
from harness.exchange.wishes import Export, Wish
from harness.exchange.zips import Archive, opened
from harness.journal import digest
from harness.types import Message, Verdict

VERSION = 2  # of the log format
TOOL = "flowreasoner-harness"
SAMPLE = re.compile(r"samples/(?P<id>.+)_epoch_(?P<epoch>\d+)(?P<rest>\.json|/sample\.json)")
STATUS = {
    "success": "complete",
    "started": "running",
    "cancelled": "interrupted",
    "error": "failed",
}
BACK = {
    "complete": "success",
    "partial": "success",
    "running": "started",
    "failed": "error",
    "refused": "error",
}
FINISH = {"length": "max_tokens", "stop": "stop", "content_filter": "content_filter",
          "tool_calls": "tool_calls"}  # fmt: skip
TASKS = {"mbpp": "mbpp", "humaneval": "humaneval", "bigcodebench": "bigcodebench-complete"}
RESULT = (  # columns of a result that stand in `metadata.harness` as they are
    "verdict", "detail", "fresh", "base", "plus", "prompt_tokens", "completion_tokens", "calls",
    "cached_calls", "rounds", "cost_usd", "fresh_cost_usd", "price_table", "wall_s", "grade_s",
    "feedback_passed", "feedback_total", "error_kind",
    "reruns",
)  # fmt: skip
CALL = (  # columns of a call likewise
    "call_no", "attempt", "round", "role", "operator", "output_format", "about", "model",
    "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "temperature",
    "seed", "max_tokens", "cached", "cost_usd", "fresh_cost_usd", "latency_s", "finish", "error",
    "error_kind",
)  # fmt: skip
RUN = ("list", "protocol", "level", "knobs", "seed", "price_table", "custom", "needs_environment",
       "environment", "sandbox", "commit", "dirty", "first_look", "left_out")  # fmt: skip
JSON_COLUMNS = ("scores", "errors", "operators")  # of records beside calls
TEXT = 5_000  # characters of a text in a summary
LONGEST = 200  # characters of an id in a member's name


def read(path: Path, wish: Wish) -> Iterator[Log]:
    """The one run of a log. Raises UsageError."""
    if read_bytes(path, 2) != b"PK":
        whole = Fields(parsed(read_bytes(path), str(path)), str(path))
        yield _log(whole, path, wish)
        return
    with opened(path) as archive:
        name = "header.json" if "header.json" in archive.members else "_journal/start.json"
        if name not in archive.members:
            raise UsageError(f"{path}: expected an Inspect log with header.json, found none")
        header = Fields(parsed(archive.read(name), f"{path}: {name}"), f"{path}: {name}")
    yield _log(header, path, wish, zipped=True)


def _log(header: Fields, path: Path, wish: Wish, *, zipped: bool = False) -> Log:
    if header.found.get("version") not in (1, VERSION):
        raise header.wrong("version", f"1 or {VERSION}")
    spec = header.inside("eval")
    ours = spec.inside("metadata").inside("harness")
    task = spec.needed("task").rpartition("/")[2]
    benchmark = ours.text("benchmark") or TASKS.get(task, ALIASES.get(task, task))
    steps = [s.get("solver") for s in header.inside("plan").several("steps") if isinstance(s, dict)]
    method = ours.text("method") or spec.text("solver") or "+".join(filter(None, steps)) or None
    packages = spec.inside("packages")
    tool = TOOL if ours.found else "inspect_ai"
    scorer = _scorer(header)
    config = spec.inside("config")
    ids = spec.inside("dataset").several("sample_ids")
    asked = [x for x in ids if isinstance(x, str | int)]
    roles = ours.inside("roles").found or {
        role: Fields(made, f"{spec.where}: {role}").needed("model")
        for role, made in spec.inside("model_roles").found.items()
        if isinstance(made, dict)
    }
    status = ours.text("status") or STATUS.get(str(header.found.get("status", "started")), "failed")
    model = spec.needed("model")
    logged = _Samples(path, header, scorer, zipped=zipped, ours=bool(ours.found))
    if benchmark not in REGISTRY and wish.benchmark is None:
        wish.say(f"{path.name}: its task {task!r} is no benchmark of ours; --benchmark names one")
    return Log(
        tool=tool,
        version=packages.text(tool),
        name=ours.text("run_id") or spec.text("eval_id"),
        rows=logged.rows,
        benchmark=benchmark,
        method=method,
        worker=ours.text("worker") if ours.found else model,
        roles={r: str(m) for r, m in roles.items() if r != "worker" and isinstance(m, str)},
        simulated=model.startswith("mockllm/") or ours.text("kind") == "simulated",
        data_hash=ours.text("benchmark_digest"),
        grader_version=ours.text("grader_version"),
        started_at=ours.number("started_at") or _unix(spec.text("created")),
        status="interrupted" if status == "running" else status,
        asked=(asked, config.whole("epochs") or 1)
        if asked and not config.found.get("limit")
        else None,
        sampling=_sampling(spec, ours),
        head={name: ours.found[name] for name in (*RUN, "benchmark_digest") if name in ours.found}
        | {"config": {"knobs": ours.found.get("given")}},
        said={
            "task": spec.text("task"),
            "scorer": scorer,
            "kind": ours.text("kind"),
            "dataset": spec.inside("dataset").text("name"),
        },
    )


def _sampling(spec: Fields, ours: Fields) -> Mapping[str, Any]:
    if ours.found:
        return ours.inside("sampling").found
    config = spec.inside("model_generate_config").found
    return {n: config[n] for n in ("temperature", "max_tokens", "top_p") if n in config}


def _scorer(header: Fields) -> str | None:
    """The first scorer's name; the one whose values are verdicts."""
    for scored in header.inside("results").several("scores"):
        return Fields(scored, header.where).text("name")
    for scored in header.inside("eval").several("scorers"):
        return Fields(scored, header.where).text("name")
    return None


def _unix(text: str | None) -> float | None:
    """Unix seconds of an ISO date; None where it is none."""
    try:
        return None if not text else datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


class _Samples:
    """The samples of a log, one at a time."""

    def __init__(
        self, path: Path, header: Fields, scorer: str | None, *, zipped: bool, ours: bool
    ) -> None:
        self.path, self.header, self.scorer = path, header, scorer
        self.zipped, self.ours = zipped, ours

    def rows(self) -> Iterator[Row]:
        for found in self._found():
            yield self._row(found)

    def _found(self) -> Iterator[Fields]:
        if not self.zipped:
            for number, sample in enumerate(self.header.several("samples")):
                yield Fields(sample, f"{self.path}: samples[{number}]")
            return
        with opened(self.path) as archive:
            for name in archive.members:
                if (match := SAMPLE.fullmatch(name)) is not None:
                    where = f"{self.path}: {name}"
                    sample = Fields(parsed(archive.read(name), where), where)
                    if match["rest"] != ".json":
                        sample = _pieces(archive, name.removesuffix("sample.json"), sample)
                    yield sample

    def _row(self, sample: Fields) -> Row:
        problem_id = sample.found.get("id")
        if not isinstance(problem_id, str | int) or isinstance(problem_id, bool):
            raise sample.wrong("id", "a string or number")
        epoch = sample.whole("epoch")
        if not epoch:
            raise sample.wrong("epoch", "a whole number of at least 1")
        sample = Fields(_resolved(sample.found), sample.where)
        ours = sample.inside("metadata").inside("harness")
        calls = tuple(_calls(sample, ours=self.ours))
        verdict, detail, score = self._verdict(sample)
        answer = score.found.get("answer") if score else None
        if self.ours and ours.found:
            return Row(
                problem_id=problem_id, sample=epoch - 1, where=sample.where, trajectory=calls,
                verdict=ours.verdict("verdict") or verdict, detail=ours.text("detail") or "",
                fresh=ours.verdict("fresh"), base=ours.verdict("base"), plus=ours.verdict("plus"),
                solution=sample.text("solution") if score is None else score.text("answer"),
                prompt_tokens=ours.whole("prompt_tokens"),
                completion_tokens=ours.whole("completion_tokens"), calls=ours.whole("calls"),
                cached_calls=ours.whole("cached_calls"), rounds=ours.whole("rounds"),
                cost_usd=ours.number("cost_usd"), fresh_cost_usd=ours.number("fresh_cost_usd"),
                price_table=ours.text("price_table"), wall_s=ours.number("wall_s"),
                grade_s=ours.number("grade_s"), feedback_passed=ours.whole("feedback_passed"),
                feedback_total=ours.whole("feedback_total"), error_kind=ours.text("error_kind"),
                at=ours.number("at"), reruns=ours.verdicts("reruns"),
            )  # fmt: skip
        tokens, costs = _usage(sample)
        return Row(
            problem_id=problem_id,
            sample=epoch - 1,
            verdict=verdict,
            detail=detail,
            where=sample.where,
            solution=answer if isinstance(answer, str) else None,
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            calls=len(calls) if "events" in sample.found else None,
            cached_calls=sum(bool(c.cached) for c in calls) if "events" in sample.found else None,
            cost_usd=costs,
            fresh_cost_usd=costs if not any(c.cached for c in calls) else None,
            wall_s=sample.number("total_time"),
            error_kind="inspect" if sample.found.get("error") else None,
            at=_unix(sample.text("completed_at")),
            trajectory=calls,
        )

    def _verdict(self, sample: Fields) -> tuple[Verdict, str, Fields | None]:
        error = sample.inside("error")
        if error.found:
            return Verdict.INVALID, f"error: {error.text('message') or ''}", None
        scores = sample.inside("scores")
        if not scores.found:
            return Verdict.INVALID, "not scored", None
        name = self.scorer if self.scorer in scores.found else next(iter(scores.found))
        score = scores.inside(str(name))
        value = score.found.get("value")
        detail = score.text("explanation") or ""
        limit = sample.inside("limit").text("type")
        if limit:
            detail = f"stopped by the limit of {limit}; {detail}"
        if value in ("C", 1, True):
            return Verdict.PASSED, detail, score
        if value == "N":
            return Verdict.NO_CODE, detail, score
        if value in ("I", "P") or (isinstance(value, int | float) and 0 <= value < 1):
            partly = f"score {value}; " if value not in ("I", 0) else ""
            return Verdict.WRONG, partly + detail, score
        raise score.wrong("value", "C, I, P, N or a number in [0, 1]")


def _pieces(archive: Archive, prefix: str, shell: Fields) -> Fields:
    """A sample that lies in pieces, as one that lies in one."""
    found = dict(shell.found)

    def sequence(name: str) -> list[Any]:
        numbers = (member.rpartition("/")[2] for member in archive.inside(f"{prefix}{name}"))
        starts = sorted(int(n[:-5]) for n in numbers if re.fullmatch(r"\d+\.json", n))
        items: list[Any] = []
        for start in starts:
            member = f"{prefix}{name}/{start}.json"
            items += parsed(archive.read(member), f"{archive.path}: {member}")
        return items

    found["events"] = sequence("events")
    found["events_data"] = {"messages": sequence("messages"), "calls": []}
    found["attachments"] = {str(n): text for n, text in enumerate(sequence("attachments"))}
    if f"{prefix}metadata.json" in archive.members:
        found["metadata"] = parsed(archive.read(f"{prefix}metadata.json"), shell.where)
    return Fields(found, shell.where)


def _resolved(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample with its attachments put back, where a row or a call is read."""
    attachments = sample.get("attachments")
    texts = attachments if isinstance(attachments, Mapping) else {}

    def put_back(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("attachment://"):
            return texts.get(value.removeprefix("attachment://"), value)
        if isinstance(value, list):
            return [put_back(one) for one in value]
        if isinstance(value, dict):
            return {name: put_back(one) for name, one in value.items()}
        return value

    wanted = ("scores", "events_data", "output", "error", "metadata")
    events = [
        put_back(e)
        for e in sample.get("events") or []
        if isinstance(e, dict) and e.get("event") == "model"
    ]
    found = {**sample, **{name: put_back(sample[name]) for name in wanted if name in sample}}
    return {**found, "events": events} if "events" in sample else found


def _calls(sample: Fields, *, ours: bool) -> Iterator[Call]:
    pool = sample.inside("events_data").several("messages")
    for number, found in enumerate(sample.several("events")):
        event = Fields(found, f"{sample.where}: model event {number}")
        messages = list(event.several("input"))
        for reference in event.several("input_refs"):
            first, after = reference
            messages += pool[first:after]
        chat = [message for m in messages if (message := _message(m)) is not None]
        output = event.inside("output")
        choices = output.several("choices")
        reply = _message(choices[0].get("message")) if choices else None
        harness = event.inside("metadata").inside("harness")
        if ours and harness.found:
            more = {n: harness.found[n] for n in CALL if n in harness.found}
            model = harness.text("model")
            yield Call(
                model=model,
                messages=chat or None,
                reply=None if harness.truth("no_reply") else reply and reply["content"],
                more=more | {"at": harness.number("at") or 0.0},
            )
            continue
        usage = output.inside("usage")
        cached_tokens = usage.whole("input_tokens_cache_read")
        config = event.inside("config")
        cost = usage.number("total_cost")
        cached = event.text("cache") == "read"
        yield Call(
            model=event.text("model"),
            messages=chat or None,
            reply=reply and reply["content"],
            role=event.text("role") or "worker",
            prompt_tokens=_prompt(usage) if usage.found else None,
            completion_tokens=usage.whole("output_tokens") if usage.found else None,
            cached_tokens=cached_tokens,
            reasoning_tokens=usage.whole("reasoning_tokens"),
            temperature=config.number("temperature"),
            seed=config.seed("seed"),
            max_tokens=config.whole("max_tokens"),
            cached=cached,
            cost_usd=0.0 if cached else cost,
            fresh_cost_usd=cost,
            latency_s=event.number("working_time"),
            finish=choices[0].get("stop_reason") if choices else None,
            error=event.text("error"),
        )


def _message(found: Any) -> Message | None:
    """A message's text; of one in parts, those that are text."""
    if not isinstance(found, dict):
        return None
    content = found.get("content")
    if isinstance(content, list):
        parts = [p.get("text") or p.get("reasoning") for p in content if isinstance(p, dict)]
        content = "\n".join(p for p in parts if isinstance(p, str))
    role = found.get("role")
    return Message(
        role=role if role in ("system", "user", "assistant") else "user", content=str(content or "")
    )


def _prompt(usage: Fields) -> int | None:
    """All tokens of a prompt: Inspect counts those from and to a cache apart."""
    parts = [usage.whole(f"input_tokens{end}") for end in ("", "_cache_read", "_cache_write")]
    return None if parts[0] is None else sum(part or 0 for part in parts)


def _usage(sample: Fields) -> tuple[tuple[int | None, int | None], float | None]:
    """((prompt, completion) tokens, dollars) of a sample; None where a model's are not known."""
    usage = sample.inside("model_usage")
    each = [usage.inside(model) for model in usage.found]
    if not each:
        return (None, None), None
    prompts = [_prompt(u) for u in each]
    completions = [u.whole("output_tokens") for u in each]
    costs = [u.number("total_cost") for u in each]
    return (_sum(prompts), _sum(completions)), _total(costs)


def _sum(values: Sequence[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None


def _total(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) if len(known) == len(values) else None


# --- out


def write(export: Export, target: Path) -> list[Path]:
    """One `.eval` a run into a folder, named as Inspect names its own. Raises UsageError."""
    made: list[Path] = []
    for run in export.runs:
        started = run.columns["started_at"]
        stamp = datetime.fromtimestamp(started or 0, UTC)
        task = re.sub(r"[^\w.-]+", "-", run.benchmark.replace("+", "-plus"))[:60]
        name = f"{stamp:%Y-%m-%dT%H-%M-%S}-00-00_{task}_{_id(run.run_id)}.eval"
        with new_path(target / name, made) as path:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                _Writer(export, run, archive, stamp).write()
    return made


def _id(*parts: object) -> str:
    """An id of 22 letters that is the same for the same things, as Inspect's are long."""
    return digest("/".join(map(str, parts)))[:22]


def _member_id(problem_id: str) -> str:
    """A problem's id as a part of a member's name, as Inspect has it: with its own slashes.

    An id that could lead an unpacker elsewhere, or that no archive takes, is made harmless; a
    digest keeps it apart from others.
    """
    parts = problem_id.split("/")
    odd = {"", ".", ".."} & set(parts) or "\\" in problem_id or ":" in parts[0]
    if not odd and problem_id.isprintable() and len(problem_id) <= LONGEST:
        return problem_id
    harmless = re.sub(r"[^\w.+= -]+", "_", problem_id[:LONGEST]).replace("..", "_")
    return f"{harmless}-{_id(problem_id)[:8]}"


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


class _Writer:
    """Writes one run's log; samples one by one, what is said of all at the end."""

    def __init__(self, export: Export, run: Run, archive: zipfile.ZipFile, stamp: datetime) -> None:
        self.export, self.run, self.archive = export, run, archive
        self.day = max(stamp.timetuple()[:6], (1980, 1, 1, 0, 0, 0))
        self.usage: dict[str, dict[str, Any]] = {}
        self.passed: dict[str, dict[str, list[bool]]] = {"verdict": {}, "base": {}, "plus": {}}
        self.ids: dict[str, None] = {}
        self.samples = self.graded = self.epochs = 0
        self.last: float | None = None

    def write(self) -> None:
        start = {"version": VERSION, "eval": self._spec([], 0), "plan": self._plan()}
        self._member("_journal/start.json", start)
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as summaries:
            for sample in samples_of(
                self.export.connection,
                self.export.results_dir,
                self.run,
                solutions=True,
                trajectories=True,
            ):
                self._sample(sample, summaries)
            summaries.seek(0)
            with self.archive.open(self._info("summaries.json"), "w", force_zip64=True) as member:
                member.write(b"[")
                while piece := summaries.read(1 << 20):
                    member.write(piece.encode())
                member.write(b"]")
        self._member("header.json", self._header())

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, self.day)
        info.compress_type = zipfile.ZIP_DEFLATED
        return info

    def _member(self, name: str, found: Any) -> None:
        self.archive.writestr(self._info(name), json.dumps(_plain(found), allow_nan=False))

    def _spec(self, ids: Sequence[str], epochs: int) -> dict[str, Any]:
        columns, head = self.run.columns, self.run.head
        roles = {
            role: made["model"]
            for role, made in (head.get("roles") or {}).items()
            if made.get("model")
        }
        worker = (head.get("roles") or {}).get("worker") or {}
        sampling = worker.get("sampling") or {}
        harness = {name: head.get(name) for name in RUN if head.get(name) is not None}
        known = ("run_id", "benchmark", "benchmark_digest", "method", "worker", "grader_version",
                 "kind", "status", "started_at", "harness_version")  # fmt: skip
        harness |= {name: columns[name] for name in known}
        given = (head.get("config") or {}).get("knobs")
        harness |= {"roles": roles, "sampling": sampling, "given": given}
        config = {
            n: sampling[n]
            for n in ("temperature", "max_tokens", "top_p")
            if sampling.get(n) is not None
        }
        return {
            "eval_id": _id(self.run.run_id, "eval"),
            "run_id": _id(self.run.run_id, "run"),
            "created": _iso(columns["started_at"] or 0),
            "task": self.run.benchmark,
            "task_id": _id(self.run.run_id),
            "task_version": 0,
            "solver": self.run.named,
            "dataset": {
                "name": self.run.benchmark,
                "samples": len(ids),
                "sample_ids": list(ids),
                "shuffled": False,
            },
            "model": columns["worker"] or "none/none",
            "model_generate_config": config,
            "model_roles": {
                role: {"model": model, "config": {}, "args": {}}
                for role, model in roles.items()
                if role != "worker"
            },
            "config": {"epochs": epochs or 1},
            "packages": {TOOL: __version__},
            "metadata": {"harness": harness},
        }

    def _plan(self) -> dict[str, Any]:
        knobs = self.run.head.get("knobs") or {}
        return {
            "name": "plan",
            "steps": [{"solver": str(self.run.columns["method"]), "params": knobs}],
            "config": {},
        }

    def _header(self) -> dict[str, Any]:
        scores = []
        for part, outcomes in self.passed.items():
            if outcomes:
                means = [sum(found) / len(found) for found in outcomes.values()]
                scores.append(
                    {
                        "name": part,
                        "scorer": part,
                        "scored_samples": len(means),
                        "unscored_samples": len(self.ids) - len(means),
                        "params": {},
                        "metrics": {
                            "accuracy": {
                                "name": "accuracy",
                                "value": math.fsum(means) / len(means),
                            },
                            "stderr": {"name": "stderr", "value": _stderr(means)},
                        },
                    }
                )
        status = BACK.get(str(self.run.columns["status"]), "cancelled")
        header: dict[str, Any] = {
            "version": VERSION,
            "status": status,
            "eval": self._spec(list(self.ids), self.epochs),
            "plan": self._plan(),
            "results": {
                "total_samples": self.samples,
                "completed_samples": self.graded,
                "scores": scores,
            },
            "stats": {
                "started_at": _iso(self.run.columns["started_at"]) or "",
                "completed_at": _iso(self.last) or "",
                "model_usage": self.usage,
                "role_usage": {},
            },
        }
        if status == "error":
            why = f"the run ended as {self.run.columns['status']}"
            header["error"] = {"message": why, "traceback": "", "traceback_ansi": ""}
        return header

    def _sample(self, sample: Sample, summaries: IO[str]) -> None:
        trajectory, result = sample.trajectory, sample.result
        assert trajectory is not None
        epoch = int(result["sample"]) + 1
        self.samples += 1
        self.epochs = max(self.epochs, epoch)
        self.ids[sample.problem_id] = None
        self.last = max(self.last or 0, result["logged_at"])
        events, usage = self._events(sample)
        chat: list[dict[str, Any]] = next(
            (e["input"] for e in reversed(events) if e["event"] == "model" and not e.get("error")),
            [],
        )
        solution = sample.solution or ""
        invalid = sample.verdict == Verdict.INVALID
        scores: dict[str, dict[str, Any]] = {}
        for part in ("verdict", "base", "plus"):
            value = result[part]
            if value is None or invalid:
                continue
            self.passed[part].setdefault(sample.problem_id, []).append(value == Verdict.PASSED)
            scores[part] = {
                "value": "C" if value == Verdict.PASSED else "I",
                "answer": solution,
                "explanation": value if part != "verdict" else f"{value}: {result['detail'] or ''}",
                "metadata": {"verdict": value},
            }
            events.append(
                {
                    "uuid": _id(self.run.run_id, sample.problem_id, epoch, part),
                    "timestamp": _iso(result["logged_at"]),
                    "working_start": events[-1]["working_start"] if events else 0,
                    "event": "score",
                    "scorer": part,
                    "score": scores[part],
                    "target": "",
                }
            )
        self.graded += not invalid
        model = str(self.run.columns["worker"] or "none/none")
        message = {
            "id": _id(self.run.run_id, sample.problem_id, epoch, "answer"),
            "role": "assistant",
            "content": _fenced(solution),
            "source": "generate",
            "model": model,
        }
        begun = next(
            (_iso(e["metadata"]["harness"]["at"]) for e in events if e["event"] == "model"), None
        )
        asked: list[dict[str, Any]] = next(
            (e["input"] for e in events if e["event"] == "model" and e["input"]), []
        )
        harness = {name: result[name] for name in RESULT if result[name] is not None}
        found: dict[str, Any] = {
            "id": sample.problem_id,
            "epoch": epoch,
            "input": asked or sample.problem_id,
            "target": "",
            "messages": [*chat, message],
            "output": {
                "model": model,
                "choices": [{"message": message, "stop_reason": "stop"}],
                "completion": message["content"],
            },
            "scores": scores or None,
            "metadata": {"harness": harness | {"at": result["logged_at"]}},
            "store": {},
            "events": events,
            "model_usage": usage,
            "role_usage": {},
            "started_at": begun,
            "completed_at": _iso(result["logged_at"]),
            "total_time": result["wall_s"],
            "working_time": result["wall_s"],
            "uuid": _id(self.run.run_id, sample.problem_id, epoch),
            "attachments": {},
        }
        if invalid:
            why = str(result["detail"] or "invalid")
            found["error"] = {"message": why, "traceback": why, "traceback_ansi": why}
        found = {name: value for name, value in found.items() if value is not None}
        self._member(f"samples/{_member_id(sample.problem_id)}_epoch_{epoch}.json", found)
        short = ("id", "epoch", "target", "model_usage", "role_usage", "started_at", "completed_at",
                 "total_time", "working_time", "uuid")  # fmt: skip
        summary = {name: found[name] for name in short if name in found}
        text = str(asked[-1]["content"]) if asked else sample.problem_id
        summary |= {
            "input": text[:TEXT],
            "metadata": {"verdict": sample.verdict},
            "scores": {
                name: {
                    **score,
                    "answer": solution[:TEXT],
                    "explanation": score["explanation"][:TEXT],
                }
                for name, score in scores.items()
            },
            "completed": True,
            "message_count": len(found["messages"]),
        }
        if invalid:
            summary["error"] = str(result["detail"] or "invalid")
        summaries.write("," * (self.samples > 1) + json.dumps(_plain(summary), allow_nan=False))

    def _events(self, sample: Sample) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """(events of a sample in the order in which they were logged, its tokens by model)."""
        trajectory = sample.trajectory
        assert trajectory is not None
        usage: dict[str, dict[str, Any]] = {}
        records = [*trajectory.calls, *trajectory.rounds, *trajectory.feedback,
                   *trajectory.workflows, *trajectory.hidden]  # fmt: skip
        records.sort(key=lambda record: record.get("logged_at") or 0)
        first = min((r.get("logged_at") or 0 for r in records), default=0)
        events = []
        for number, record in enumerate(records):
            at = record.get("logged_at") or 0
            place = _id(self.run.run_id, sample.problem_id, sample.result["sample"], number)
            event = {"uuid": place, "timestamp": _iso(at), "working_start": round(at - first, 3)}
            if record["kind"] == "call":
                event |= self._model(record, trajectory.text, place, usage)
            else:
                event |= {
                    "event": "info",
                    "source": record["kind"],
                    "data": _info(record, trajectory.text),
                }
            events.append(event)
        for model, counts in usage.items():
            whole = self.usage.setdefault(model, {})
            _add(whole, counts)
        return events, usage

    def _model(
        self, call: Mapping[str, Any], text: Any, place: str, usage: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        model = str(call["model"] or "none/none")
        reply = text(call["response_sha"])
        message = {"id": f"{place}-a", "role": "assistant", "content": reply or "",
                   "source": "generate", "model": model}  # fmt: skip
        output: dict[str, Any] = {
            "model": model,
            "choices": [
                {"message": message, "stop_reason": FINISH.get(str(call["finish"]), "unknown")}
            ],
            "completion": reply or "",
        }
        counts = _counts(call)
        if counts is not None and not call["error"]:
            output["usage"] = counts
            _add(usage.setdefault(model, {}), counts)
        if call["error"]:
            output["error"] = call["error"]
        harness = {name: call[name] for name in CALL if call.get(name) is not None}
        event = {
            "event": "model",
            "model": model,
            "role": call["role"],
            "input": [
                {**m, "id": f"{place}-{n}"} for n, m in enumerate(_chat(text(call["request_sha"])))
            ],
            "tools": [],
            "tool_choice": "none",
            "config": {
                n: call[n] for n in ("temperature", "max_tokens", "seed") if call[n] is not None
            },
            "output": output,
            "error": call["error"],
            "cache": "read" if call["cached"] else None,
            "working_time": call["latency_s"],
            "metadata": {"harness": harness | {"at": call["logged_at"], "no_reply": reply is None}},
        }
        return {name: value for name, value in event.items() if value is not None}


def _counts(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """A call's tokens as Inspect counts them; None where they are not known."""
    prompt, completion = call["prompt_tokens"], call["completion_tokens"]
    if prompt is None or completion is None:
        return None
    cached = call["cached_tokens"]
    counts = {
        "input_tokens": max(0, prompt - (cached or 0)),
        "output_tokens": completion,
        "total_tokens": prompt + completion,
        "input_tokens_cache_read": cached,
        "reasoning_tokens": call["reasoning_tokens"],
        "total_cost": call["fresh_cost_usd"],
    }
    return {name: value for name, value in counts.items() if value is not None}


def _add(whole: dict[str, Any], counts: Mapping[str, Any]) -> None:
    """Add tokens to a sum. Dollars stay out of it once they are unknown for a call."""
    unpriced = (bool(whole) and "total_cost" not in whole) or "total_cost" not in counts
    for name, value in counts.items():
        whole[name] = whole.get(name, 0) + value
    if unpriced:
        whole.pop("total_cost", None)


def _chat(request: str | None) -> list[dict[str, Any]]:
    """The messages of a recorded request."""
    try:
        found = json.loads(request or "null")
    except ValueError:
        return [{"role": "user", "content": request}]
    messages = found.get("messages") if isinstance(found, dict) else None
    if not isinstance(messages, list):
        return []
    return [
        {
            "role": m["role"],
            "content": str(m.get("content") or ""),
            **({"source": "input"} if m["role"] == "user" else {}),
        }
        for m in messages
        if isinstance(m, dict) and m.get("role") in ("system", "user", "assistant")
    ]


def _info(record: Mapping[str, Any], text: Any) -> dict[str, Any]:
    """A record of the trajectory as plain data, its texts in place."""
    skipped = {"kind", "run_no", "segment", "logged_at", "result_key", "problem_id", "sample"}
    found: dict[str, Any] = {}
    for name, value in record.items():
        if name in skipped or value is None:
            continue
        if name.endswith("_sha"):
            found[name.removesuffix("_sha")] = text(value)
        elif name in JSON_COLUMNS and isinstance(value, str):
            found[name] = json.loads(value)
        else:
            found[name] = value
    return found


def _fenced(code: str) -> str:
    """A program as a block of Markdown, in a fence that it does not hold."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}python\n{code}\n{fence}" if code else ""


def _plain(value: Any) -> Any:
    """Data without halves of characters, which no UTF-8 reader takes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _stderr(means: Sequence[float]) -> float:
    """The standard error of a mean over problems; 0 of one, as Inspect has it."""
    n = len(means)
    if n < 2:
        return 0.0
    mean = math.fsum(means) / n
    return math.sqrt(math.fsum((x - mean) ** 2 for x in means) / (n - 1) / n)
