"""What methods share that search over workflows written as code: AFlow, FlowReasoner, ScoreFlow.

A meta-agent's reply has three parts in tags: modification, graph (the code of `class Workflow`) and
prompt (constants, as `prompt_custom.NAME`). Soft mixed selection: AFlow, Zhang et al. 2024,
arXiv:2410.10762, equation 3. Differs from the releases: the last match of a tag counts, reasoning
aside; a graph that stands in a fence, or only in a fence, is taken.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from baselines.operators import DESCRIPTIONS, OPERATORS
from harness.extract import fenced_blocks, parses, strip_reasoning
from harness.types import WorkflowLimits

TEMPLATE = """\
class Workflow:
    async def __call__(self, problem: str, entry_point: str):
        solution = await self.custom_code_generate(
            problem=problem, entry_point=entry_point, instruction=""
        )
        return solution["response"], self.llm.cost_manager.total_cost
"""

RELEASED = ("custom", "custom_code_generate", "sc_ensemble", "test")
# the operators that the releases of AFlow and FlowReasoner enable for code


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The knobs that say what one execution of a workflow may use."""

    workflow_calls: int = 30  # model calls
    workflow_tokens: int = 200_000  # prompt and completion
    workflow_s: float = 900.0  # seconds, less those spent waiting for a turn at a model

    @property
    def limits(self) -> WorkflowLimits:
        return WorkflowLimits(self.workflow_calls, self.workflow_tokens, total_s=self.workflow_s)


ALLOWANCE_BOUNDS = {
    "workflow_calls": (1, 1000),
    "workflow_tokens": (1, 1e9),
    "workflow_s": (1, 1e6),
}
DRAW_BOUNDS = {"sample": (1, 1000), "alpha": (0, 1000), "lam": (0, 1)}  # of the mixed selection


@dataclass(frozen=True)
class Proposal:
    """What a meta-agent's reply proposes; without code it carries its error."""

    modification: str = ""
    graph: str = ""
    prompts: str = ""
    error: str | None = None  # one line: where, class, message
    error_class: str | None = None  # "reply:NoWorkflow"


def mixed_probabilities(scores: Sequence[float], alpha: float, lam: float) -> list[float]:
    """AFlow's soft mixed selection over scores in [0, 1]: lam uniform, the rest by exp(alpha s)."""
    top = max(scores)
    weights = [math.exp(alpha * 100 * (s - top)) for s in scores]
    total = sum(weights)
    return [lam / len(scores) + (1 - lam) * w / total for w in weights]


def operator_list(names: Collection[str] | None = None) -> str:
    """The descriptions of these operators, numbered; None is all of them."""
    listed = [text for text in DESCRIPTIONS if names is None or text.partition("(")[0] in names]
    return "\n".join(f"{i}. {text}" for i, text in enumerate(listed, 1))


def unused_operators(graph: str, names: Iterable[str] = tuple(OPERATORS)) -> str:
    """Those of these operators' names that a workflow does not call, or "nothing"."""
    return ", ".join(name for name in names if f"self.{name}(" not in graph) or "nothing"


_MODIFICATION = re.compile(
    r"<modification>(.*?)(?:</modification>|(?=\n<graph>)|\Z)", re.DOTALL | re.IGNORECASE
)
_FENCED = re.compile(r"\A(`{3,}|~{3,})[^\n]*\n(.*?)\n?\1\s*\Z", re.DOTALL)


def tagged(reply: str, name: str) -> str | None:
    """The last <name>...</name> of a reply, also when it was cut before its closing tag."""
    text = reply.lower()
    closing = text.rfind(f"</{name}>")
    opening = text.rfind(f"<{name}>", 0, closing) if closing >= 0 else text.rfind(f"<{name}>")
    if opening < 0:
        return None
    return reply[opening + len(name) + 2 : closing if closing >= 0 else None].strip("\n")


def unfenced(field: str) -> str:
    """A field without the fence around all of it; fences inside are its own."""
    match = _FENCED.match(field.strip())
    return match.group(2) if match else field.strip("\n")


def parse_reply(reply: str) -> Proposal:
    """What a reply proposes; without code, its error."""
    text = strip_reasoning(reply)
    modification = ""
    if found := _MODIFICATION.search(text):
        modification = found.group(1).strip()
        text = text[: found.start()] + text[found.end() :]  # it may name the tags below
    graph = tagged(text, "graph")
    if graph is not None:
        graph = unfenced(graph)
    if graph is None or not parses(graph):
        # words around the code, or no tags at all
        holding = [b for b in fenced_blocks(graph or text) if "class Workflow" in b]
        graph = holding[-1] if holding else graph
    if not (graph or "").strip():
        missing = "no <graph> part and no code block with class Workflow"
        return Proposal(
            modification, error=f"reply: NoWorkflow: {missing}", error_class="reply:NoWorkflow"
        )
    graph = (graph or "").strip("\n") + "\n"
    # without prompt_custom, nothing in the <prompt> part can matter
    prompts = unfenced(tagged(text, "prompt") or "") if "prompt_custom" in graph else ""
    return Proposal(modification, graph, prompts)


def plain(text: str) -> str:
    """A text as it is compared: without case, layout and its full stop."""
    return " ".join(text.lower().split()).rstrip(".")


def same_program(graph: str, other: str) -> bool:
    """Whether two workflows are one program: equal syntax trees, comments and layout aside."""
    try:
        return ast.dump(ast.parse(graph)) == ast.dump(ast.parse(other))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def taking(shared: type, function: Callable[..., Any], *, last: bool = False) -> Callable[..., Any]:
    """The function, with the fields of `shared` among its named keyword-only arguments.

    They come first or `last` of these; a dataclass's own fields before those of its base.
    """
    own = inspect.signature(function, eval_str=True)
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    every = inspect.signature(shared, eval_str=True).parameters
    fields = [every[name] for kind in shared.__mro__ for name in inspect.get_annotations(kind)]
    first = [p for p in kept if p.kind is not p.KEYWORD_ONLY]
    rest = [p for p in kept if p.kind is p.KEYWORD_ONLY]
    named = [*rest, *fields] if last else [*fields, *rest]
    signature = own.replace(parameters=[*first, *named])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function
