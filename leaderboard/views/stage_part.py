"""What a sample did, stage by stage: designs, workflows, executions, calls, feedback, notes.

A stage is a round, or what came before, after or without rounds (`leaderboard.timeline`). Nothing
of it is read from the journal before it is unfolded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st

from harness import graph
from harness.metrics import count, dollars, duration, percent
from harness.page import things
from harness.show_sample import request_text
from harness.tree import SearchNode, tree_dot, tree_text
from leaderboard.timeline import (
    Call,
    Design,
    Event,
    Execution,
    Feedback,
    Note,
    Stage,
    Step,
    Timeline,
    as_python_reads,
    numbered,
    split_reasoning,
)
from leaderboard.views.shown import (
    LABEL,
    PAGE,
    SHOWN,
    Shown,
    error_part,
    fold,
    long_text,
    mark,
    paged,
    read,
    text_part,
)
from leaderboard.widgets import code, drawing, escaped, go, plain_table, shortened

BAR = 10  # characters of a score's bar
OUTSIDE = {"before": "Before the rounds", "after": "After the rounds", "alone": "What it did"}


def trajectory_part(shown: Shown) -> None:
    """What a sample did: an overview of its rounds, then each of them, the decisive unfolded."""
    line = shown.line
    if not line.stages:
        st.caption("Nothing was recorded of what it did.")
        return
    st.subheader("Trajectory", anchor=False)
    if len(line.stages) > 1:
        overview(shown, linked=True)
    tree(line)
    if shown.source is not None:
        source_part(shown)
    opened = unfolded(shown)
    first = (paged(f"stages-{shown.key}", len(line.stages), PAGE, "stages" if shown.bound else None)
             - 1) * PAGE  # fmt: skip
    here = list(enumerate(line.stages))[first : first + PAGE]
    keys = {stage_key(shown, stage): stage_name(stage) for _, stage in here}
    elsewhere = [stage_name(s) for at, s in enumerate(line.stages)
                 if at in opened and not first <= at < first + PAGE]  # fmt: skip

    def toggled() -> None:
        names = [name for key, name in keys.items() if st.session_state.get(key)]
        st.query_params["open"] = ",".join([*elsewhere, *names]) or "none"

    for at, stage in here:
        with st.container(gap="xxsmall"):
            st.html(f'<span id="{anchor(stage)}"></span>')
            box = st.expander(
                stage_words(stage), expanded=at in opened, key=stage_key(shown, stage),
                icon=stage_icon(stage), on_change=toggled if shown.bound else "rerun",
            )  # fmt: skip
        if box.open:
            with box:
                stage_part(shown, stage)


def overview(shown: Shown, *, linked: bool) -> None:
    """One row a stage: score, hidden verdict, what it took, and what it all took up to there."""
    import pyarrow as pa

    rows = []
    for stage in shown.line.stages:
        name = stage_name(stage)
        star = " ★" if stage.chosen else ""
        row = {
            "Round": f"[{name}](#{anchor(stage)}){star}" if linked else f"{name}{star}",
            "Feedback": score_words(stage),
            "Hidden tests": hidden_words(stage),
            "Calls": count(stage.spent.calls),
            "Tokens": escaped(count(stage.spent.tokens)),
            "Dollars": escaped(dollars(stage.spent.fresh_cost_usd)),
            "Model time": escaped(duration(stage.spent.model_s)),
        }
        if linked:
            row["Calls so far"] = count(stage.total.calls)
            row["Dollars so far"] = escaped(dollars(stage.total.fresh_cost_usd))
        rows.append(row)
    st.table(pa.Table.from_pylist(rows), border="horizontal", hide_index=True)
    if any(stage.chosen for stage in shown.line.stages):
        st.caption("★ its program, or workflow, is the answer")


def score_words(stage: Stage) -> str:
    """A round's feedback score as a bar, in Markdown of ours."""
    if stage.design is None:
        return ""
    if stage.errors and not stage.score:
        return "failed"
    if stage.score is None:
        return "no test"
    full = min(BAR, max(0, int(BAR * stage.score + 0.5)))
    return f"`{'█' * full}{'░' * (BAR - full)}` {percent(stage.score, 0)} %"


def hidden_words(stage: Stage) -> str:
    """The hidden verdict of a round's program."""
    return "" if stage.hidden is None else escaped(f"{mark(stage.hidden)} {verdict_of(stage)}")


def verdict_of(stage: Stage) -> str:
    return shortened(stage.hidden or "", 30)


def tree(line: Timeline) -> None:
    """Which round was made of which, where they do not just follow one another."""
    nodes = [
        SearchNode(
            stage.number, stage.design.parent, stage.design.modification, stage.design.score,
            error=stage.design.error, workflow_sha=stage.design.workflow_sha,
        )
        for stage in line.rounds
        if stage.number is not None and stage.design is not None
    ]  # fmt: skip
    if any(node.parent not in (None, node.number - 1) for node in nodes):
        with st.expander("Which round was made of which"):
            drawing(tree_dot(nodes), tree_text(nodes))


def source_part(shown: Shown) -> None:
    """The workflow that a search found, with the lines of it that failed here."""
    assert shown.source is not None
    lines = tuple(dict.fromkeys(at for stage in shown.line.stages for at in stage.lines))
    with st.container(border=True):
        st.markdown("**The workflow that its search found**")
        workflow_part(shown, "source", shown.source.code, lines)
        if shown.source.prompts:
            fold(shown, "Prompts", "source-prompts",
                 lambda: long_text(shown, "source-prompts-text", shown.source.prompts,  # type: ignore[union-attr]
                                   language="python"))  # fmt: skip
        st.button("Its search", on_click=go, args=("searches",), type="tertiary",
                  kwargs={"run": shown.source.run}, key=f"search-{shown.key}")  # fmt: skip


def stage_name(stage: Stage) -> str:
    return str(stage.number) if stage.number is not None else stage.place


def stage_key(shown: Shown, stage: Stage) -> str:
    return f"stage-{shown.key}-{stage_name(stage)}"


def anchor(stage: Stage) -> str:
    return f"stage-{stage_name(stage)}"


def unfolded(shown: Shown) -> frozenset[int]:
    """Indices of the stages that are open: what the address says, or the decisive ones."""
    told = st.query_params.get("open") if shown.bound else None
    if told is None:
        return shown.line.decisive
    names = set(told.split(","))
    return frozenset(at for at, s in enumerate(shown.line.stages) if stage_name(s) in names)


def stage_icon(stage: Stage) -> str:
    if stage.chosen:
        return ":material/star:"
    if stage.errors:
        return ":material/error:"
    return ":material/sync:" if stage.number is not None else ":material/forum:"


def stage_words(stage: Stage) -> str:
    """The label of a stage: no text of a model but a verdict's name."""
    design, spent = stage.design, stage.spent
    words = [OUTSIDE[stage.place] if stage.number is None else f"Round {stage.number}"]
    words += ["the answer"] if stage.chosen else []
    if design is not None:
        words += [f"from round {design.parent}"] if design.parent is not None else []
        words += [f"feedback {percent(design.score, 0)} %"] if design.score is not None else []
        words += ["no feedback test"] if design.score is None and not design.error else []
        words += ["same as the template"] if design.same_as_template else []
        words += [f"at {shortened(design.about, 40)}"] if design.about else []
    if stage.errors:
        where = f" at line {stage.lines[0]}" if stage.lines else ""
        words.append(f"failed{where}")
    words += [f"hidden tests {verdict_of(stage)}"] if stage.hidden is not None else []
    if spent.calls or spent.failed:
        words += [things(spent.calls, "call"), f"{count(spent.tokens)} tokens",
                  dollars(spent.fresh_cost_usd), duration(spent.model_s)]  # fmt: skip
    return f"**{escaped(words[0])}** {escaped(''.join(f' · {word}' for word in words[1:]))}"


def stage_part(shown: Shown, stage: Stage) -> None:
    """All of a stage: what was made, what it called, what was said of it."""
    name = stage_name(stage)
    shown.texts.find(
        sha for d in stage.designs for sha in (d.workflow_sha, d.prompts_sha, d.reply_sha)
    )
    for at, design in enumerate(stage.designs):
        design_part(shown, stage, design, f"{name}-{at}")
    events_part(shown, stage)
    for at, design in enumerate(stage.designs):
        if design.code_sha:
            fold(
                shown,
                "Program of the round",
                f"{name}-{at}-program",
                lambda key=f"{name}-{at}-program-text", sha=design.code_sha: text_part(  # type: ignore[misc]
                    shown, key, sha, "python"
                ),
            )


def events_part(shown: Shown, stage: Stage) -> None:
    """Calls, executions, feedback and notes of a stage in order, so many on a page."""
    name = stage_name(stage)
    items = flat(stage.events)
    page_no = paged(f"calls-{shown.key}-{name}", len(items), PAGE,
                    f"calls-{name}" if shown.bound else None)  # fmt: skip
    first = (page_no - 1) * PAGE
    here = items[first : first + PAGE]
    shown.texts.find(
        sha for _, item, _ in here if isinstance(item, Call)
        for sha in (item.request_sha, item.response_sha)
    )  # fmt: skip
    executions = sum(isinstance(item, Execution) for _, item, _ in items)
    told = stage.design.error if stage.design else None
    for at, item, inside in here:
        key = f"{name}-{at}"
        if isinstance(item, Execution):
            number = sum(isinstance(x, Execution) for n, x, _ in items if n <= at)
            execution_part(shown, item, key, number, executions, told)
        elif isinstance(item, Call):
            call_part(shown, item, key, inside)
        elif isinstance(item, Feedback):
            feedback_part(shown, item, key)
        else:
            note_part(shown, item, key)


def flat(events: Sequence[Event]) -> list[tuple[int, Event, bool]]:
    """(number, event, whether it is part of an execution), executions before what is in them."""
    found: list[tuple[Event, bool]] = []
    for event in events:
        found.append((event, False))
        if isinstance(event, Execution):
            found += [(call, True) for call in event.calls]
            found += [(told, True) for told in event.feedback]
    return [(at, event, inside) for at, (event, inside) in enumerate(found)]


def design_part(shown: Shown, stage: Stage, design: Design, key: str) -> None:
    """What a round made: the change, the reasoning behind it, the workflow and its graph."""
    if design.modification:
        long_text(shown, f"{key}-change", design.modification, label="Modification")
    reply = read(shown, design.reply_sha)
    if reply:
        thoughts, answer = split_reasoning(reply)
        if thoughts:
            fold(shown, f"Reasoning, {things(len(thoughts), 'character')}", f"{key}-thoughts",
                 lambda: long_text(shown, f"{key}-thoughts-text", thoughts))  # fmt: skip
        fold(shown, f"Reply of the meta-agent, {things(len(answer), 'character')}", f"{key}-reply",
             lambda: long_text(shown, f"{key}-reply-text", answer))  # fmt: skip
    elif design.reply_sha and reply is None:
        st.caption("The reply is not in the journal.")
    text = read(shown, design.workflow_sha)
    if design.error:
        error_part(shown, f"{key}-error", design.error)
    if text:
        workflow_part(shown, key, text, stage.lines)
    elif design.workflow_sha and text is None:
        st.caption("The workflow is not in the journal.")
    if prompts := read(shown, design.prompts_sha):
        fold(
            shown,
            "Prompts of the workflow",
            f"{key}-prompts",
            lambda: long_text(shown, f"{key}-prompts-text", prompts, language="python"),
        )
    if len(design.scores) > 1:
        said = ", ".join(f"{percent(score, 0)} %" for score in design.scores)
        st.caption(escaped(f"Feedback of its runs: {said}"))


def workflow_part(shown: Shown, key: str, text: str, lines: Sequence[int]) -> None:
    """A workflow's code with numbers of lines, those that failed marked; beside it its graph."""
    for line in lines:
        if (excerpt := numbered(text[:SHOWN], line)) is not None:
            st.caption(f"Line {line} failed")
            code(excerpt)
    left, right = st.columns([3, 2])
    with left:
        st.caption("Workflow")
        name = f"workflow-{shown.key}-{key}"
        with st.container(key=name):
            long_text(shown, f"{key}-workflow", as_python_reads(text), language="python",
                      line_numbers=True)  # fmt: skip
        marks = ", ".join(f".st-key-{name} code > span:nth-of-type({line})" for line in lines)
        if marks:
            st.html(f"<style>{marks} {{background: rgba(255, 75, 75, .25)}}</style>")
    with right:
        st.caption("Its graph")
        found = graph.workflow_graph(text)
        if found.error is None:
            drawing(graph.dot(found), graph.text(found))
            fold(shown, "The same in words", f"{key}-graph", lambda: code(graph.text(found)))
        else:
            code(graph.text(found))


def execution_part(
    shown: Shown, run: Execution, key: str, number: int, of: int, told_before: str | None
) -> None:
    """One execution of a workflow: the operators in order, with what each took."""
    which = f" {number} of {of}" if of > 1 else ""
    at = f", at {shortened(run.about, 40)}" if run.about else ""
    told = things(run.told_calls, "model call")
    st.markdown(f"**{escaped(f'Execution{which}{at}: {told}')}**")
    if run.steps:
        plain_table(
            ["", "Operator", "Calls", "Tokens", "Dollars", "Model time"],
            [step_cells(at, step) for at, step in enumerate(run.steps, 1)],
        )
    else:
        st.caption("It called no operator.")
    if not run.known and run.told_calls:
        st.caption("Which calls are its own is not known: several ran at once.")
    if run.error and run.error == told_before:
        st.caption("It failed as said above.")
    elif run.error:
        error_part(shown, f"{key}-error", run.error)
    if run.answer_sha:
        fold(shown, "Its answer", f"{key}-answer",
             lambda: text_part(shown, f"{key}-answer-text", run.answer_sha, "python"))  # fmt: skip


def step_cells(at: int, step: Step) -> list[str]:
    """An operator as a row: dashes where its calls are not known, or stand at another step."""
    name = shortened(step.operator, LABEL)
    if not step.calls:
        return [str(at), name, "none" if step.several == 1 else "above", "", "", ""]
    shared = f" for {step.several} steps" if step.several > 1 else ""
    spent = step.spent
    return [str(at), name, f"{count(spent.calls)}{shared}", count(spent.tokens),
            dollars(spent.fresh_cost_usd), duration(spent.model_s)]  # fmt: skip


def call_part(shown: Shown, call: Call, key: str, inside: bool) -> None:
    """One call, folded: its prompt and reply are read when it is unfolded."""
    label = escaped(("↳ " if inside else "") + call_words(call))

    def texts() -> None:
        if call.error or call.error_kind:
            kind = f"{call.error_kind}: " if call.error_kind else ""
            error_part(shown, f"{key}-error", f"{kind}{call.error or ''}")
        settings = {"temperature": call.temperature, "seed": call.seed,
                    "most tokens": call.max_tokens}  # fmt: skip
        said = [f"{name} {value}" for name, value in settings.items() if value is not None]
        if said:
            st.caption(escaped(" · ".join(said)))
        text_part(shown, f"{key}-prompt", call.request_sha, label="Prompt",
                  form=lambda text: request_text(text) or text)  # fmt: skip
        reply = read(shown, call.response_sha)
        if reply:
            thoughts, answer = split_reasoning(reply)
            if thoughts:
                long_text(shown, f"{key}-thoughts", thoughts, label="Reasoning")
            long_text(shown, f"{key}-reply", answer, label="Reply", whole=call.response_sha)
        elif call.response_sha:
            st.caption("The reply is empty." if reply == "" else "The reply is not in the journal.")

    fold(shown, label, f"{key}-call", texts, expanded=len(shown.line.stages) == 1
         and shown.line.spent.calls + shown.line.spent.failed <= 2, ours=False)  # fmt: skip


def call_words(call: Call) -> str:
    """A call as one line: who asked which model, what it took, how it ended."""
    again = f", attempt {call.attempt}" if call.attempt > 1 else ""
    words = [f"call {call.number}{again}", shortened(call.role, 30), shortened(call.model, 60)]
    if call.operator:
        form = f" as {shortened(call.output_format, 40)}" if call.output_format else ""
        words.append(f"{shortened(call.operator, 60)}{form}")
    words += ["wrote this round's design"] if call.wrote else []
    words += [f"at {shortened(call.about, 40)}"] if call.about else []
    if call.error is None and call.error_kind is None:
        parts = {"cached": call.cached_tokens, "reasoning": call.reasoning_tokens}
        known = [f"{count(value)} {name}" for name, value in parts.items() if value]
        of_these = f" ({', '.join(known)})" if known else ""
        words += [
            f"{count(call.prompt_tokens)} + {count(call.completion_tokens)} tokens{of_these}",
            duration(call.latency_s), dollars(call.fresh_cost_usd),
        ]  # fmt: skip
        words += ["from the cache"] if call.cached else []
        words += (
            [f"stopped by {shortened(str(call.finish), 30)}"]
            if call.finish not in (None, "stop")
            else []
        )
    else:
        words.append("cancelled" if call.error_kind == "cancelled"
                     else f"failed: {shortened(call.error_kind or 'error', 40)}")  # fmt: skip
    words += ["by an earlier try"] if call.earlier else []
    return " · ".join(words)


def feedback_part(shown: Shown, told: Feedback, key: str) -> None:
    """What the feedback tests said of a program."""
    which = "Tests that an operator ran" if told.inside else "Feedback"
    at = f" at {shortened(told.about, 40)}" if told.about else ""
    verdict = f", {shortened(told.verdict, 30)}" if told.verdict else ""
    words = f"{which}{at}: {count(told.passed)} of {count(told.total)} tests passed{verdict}"
    st.markdown(f"**{escaped(words)}**")
    if told.errors:
        long_text(shown, f"{key}-failing", "\n".join(told.errors), label="Failing tests")
    if told.code_sha:
        fold(shown, "Program that was tested", f"{key}-tested",
             lambda: text_part(shown, f"{key}-tested-text", told.code_sha, "python"))  # fmt: skip


def note_part(shown: Shown, note: Note, key: str) -> None:
    """What a method noted, in its own words."""
    st.markdown(f"**{escaped(f'Note: {shortened(note.kind, LABEL)}')}**")
    if note.fields:
        lines = [f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
                 for name, value in note.fields.items()]  # fmt: skip
        long_text(shown, f"{key}-note", "\n".join(lines))
    for at, (name, sha) in enumerate(note.texts):
        language = "python" if name in ("workflow", "prompts", "code") else None
        fold(shown, escaped(f"Its {shortened(name, LABEL)}"), f"{key}-note-{at}",
             lambda sha=sha, n=at, lang=language:  # type: ignore[misc]
             text_part(shown, f"{key}-note-{n}-text", sha, lang), ours=False)  # fmt: skip
