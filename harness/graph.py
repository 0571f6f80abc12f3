"""A workflow drawn from its code: `text` for a terminal, `dot` for Graphviz. Standard library only.

`workflow_graph` reads model-written code and runs none of it: operator calls are nodes, a variable
that carries one call's result into another is an edge, loops and branches are blocks around nodes.
It says what the code may do, not what it did. What a model wrote appears as quoted, shortened text:
no character of it can steer a terminal, or leave its label in a drawing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

NODES = 300  # drawn of one workflow
STEPS = 20_000  # pieces of syntax looked at; nested loops are read twice each
SOURCE = 200_000  # characters of a workflow
LABEL = 48  # characters of a label
INLINED = 4  # how deep helper functions are followed
INPUTS = ("problem", "entry_point", "test_cases")  # names that a workflow finds without asking
PROMPTS = "prompt_custom"
GROWS = {"append", "extend", "add", "insert", "update", "setdefault"}  # methods of a collection
SETTINGS = {"model": "model=", "temperature": "T=", "output_format": "format=", "role": "role="}
# arguments of a call that its label tells

Sources = frozenset[int]
NONE: Sources = frozenset()


@dataclass(frozen=True)
class Node:
    """A step: what goes in, a call of an operator or agent, what comes out, the end of a loop."""

    number: int  # 0 is the input; then in the order of the code
    kind: Literal["input", "call", "return", "break"]
    label: str
    hint: str = ""  # prompt constants, model, temperature
    within: tuple[int, ...] = ()  # numbers of the blocks around it, outermost first


@dataclass(frozen=True)
class Block:
    """A loop, branch or helper around some nodes."""

    number: int
    label: str
    after: tuple[int, ...] = ()  # nodes whose results decide about it


@dataclass(frozen=True)
class Edge:
    """Data from one node to another; from a later one to an earlier, in a loop's next turn."""

    start: int
    end: int


@dataclass(frozen=True)
class Graph:
    """A workflow as it is written; with an `error` in place of nodes when it cannot be read."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    blocks: tuple[Block, ...] = ()
    error: str | None = None  # one line
    cut: bool = False  # there is more than is drawn


def workflow_graph(code: str) -> Graph:
    """The graph of `class Workflow`, or of an agent's `forward`; an error where there is none."""
    if len(code) > SOURCE:
        return Graph(error=f"longer than {SOURCE:,} characters: not drawn")
    try:
        return _graph_of(ast.parse(code))
    except SyntaxError as error:
        line = f" (line {error.lineno})" if error.lineno else ""
        return Graph(error=f"SyntaxError: {shown(error.msg)}{line}")
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or nested too deeply
        return Graph(error=f"{type(error).__name__}: this code cannot be read")


def _graph_of(tree: ast.Module) -> Graph:
    """The graph of a parsed file. Raises RecursionError."""
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    named = [c for c in classes if c.name == "Workflow"] or classes
    walk = _Walk()
    entry: ast.FunctionDef | ast.AsyncFunctionDef | None = None
    for function in _functions(tree.body):
        walk.functions[function.name] = function
        entry = function if function.name == "forward" else entry
    if named:
        methods = {f.name: f for f in _functions(named[-1].body)}
        walk.functions |= {f"self.{name}": f for name, f in methods.items()}
        walk.learn(methods.get("__init__"))
        own = (methods.get(name) for name in ("__call__", "run_workflow", "forward"))
        entry = next((method for method in own if method is not None), None)
        if entry is None:
            return Graph(error=f"class {shown(named[-1].name)} has no method __call__")
    if entry is None:
        return Graph(error="no class Workflow and no function forward")
    return walk.graph(entry)


def _functions(body: Sequence[ast.stmt]) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


class _Full(Exception):
    """There is more than is drawn."""


class _Walk:
    """Follows a function once and notes which results reach which calls.

    `held` maps a variable to the nodes whose results it may hold. A loop's body is read twice, so
    that what its first turn leaves behind reaches its second.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: dict[Edge, None] = {}
        self.blocks: list[Block] = []
        self.functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.operators: dict[str, str] = {}  # other names of operators
        self.agents: dict[str, tuple[str, str]] = {}  # variable -> (name, hint) of what it calls
        self.held: dict[str, Sources] = {}
        self.within: tuple[int, ...] = ()
        self.calls: tuple[int, ...] = ()  # of helpers that are being followed
        self.returned: list[Sources] = []  # of the helper that is being followed
        self.loops = 0
        self.made: dict[tuple[object, ...], int] = {}  # what already has a number
        self.said: dict[ast.AST, str] = {}  # syntax -> its text, made once
        self.steps = 0

    def learn(self, init: ast.FunctionDef | ast.AsyncFunctionDef | None) -> None:
        """Operators under names of their own: `self.mine = operator.Custom(self.llm)`."""
        for statement in init.body if init else ():
            if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)):
                continue
            made = statement.value.func
            name = made.attr if isinstance(made, ast.Attribute) else getattr(made, "id", "")
            for target in statement.targets:
                if (found := _name(target)).startswith("self.") and name[:1].isupper():
                    self.operators[found] = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

    def graph(self, entry: ast.FunctionDef | ast.AsyncFunctionDef) -> Graph:
        given = [name for name in _parameters(entry) if name != "self"]
        self._node(("input",), "input", "input", ", ".join(given))
        self.held = dict.fromkeys([*INPUTS, "self.problem", *given], frozenset({0}))
        cut = False
        try:
            self._body(entry.body)
        except _Full:
            cut = True
        fed = {edge.end for edge in self.edges if edge.start != 0}
        # a call that reads earlier results is not drawn as reading the problem as well
        edges = tuple(e for e in self.edges if e.start != 0 or e.end not in fed)
        used = {number for node in self.nodes for number in node.within}
        blocks = tuple(block for block in self.blocks if block.number in used)
        return Graph(tuple(self.nodes), edges, blocks, cut=cut)

    def _node(self, key: tuple[object, ...], kind: str, label: str, hint: str = "") -> int:
        """The number of a step, given on first sight. Raises _Full."""
        if (key, self.calls) in self.made:
            return self.made[key, self.calls]
        if len(self.nodes) >= NODES:
            raise _Full
        number = self.made[key, self.calls] = len(self.nodes)
        self.nodes.append(Node(number, kind, shown(label), shown(hint), self.within))  # type: ignore[arg-type]
        return number

    @contextmanager
    def _block(self, at: ast.AST, label: str, after: Sources = NONE) -> Iterator[None]:
        """What is made inside stands in a block; always the same one for the same syntax."""
        key = ("block", id(at), label, self.calls)
        if key not in self.made:
            self.made[key] = len(self.blocks)
            decides = tuple(sorted(after - {0}))
            self.blocks.append(Block(len(self.blocks), shown(label), decides))
        before, self.within = self.within, (*self.within, self.made[key])
        try:
            yield
        finally:
            self.within = before

    def _words(self, node: ast.AST) -> str:
        """A piece of syntax as a label."""
        if node not in self.said:
            self.said[node] = shown(ast.unparse(node))
        return self.said[node]

    def _loop_label(self, node: ast.For | ast.AsyncFor | ast.While | ast.comprehension) -> str:
        if isinstance(node, ast.While):
            return f"while {self._words(node.test)}"
        turns = node.iter
        if isinstance(turns, ast.Call) and _name(turns.func) == "range" and len(turns.args) == 1:
            times = turns.args[0]
            if isinstance(times, ast.Constant) and isinstance(times.value, int):
                return f"loop x{times.value}"
        return f"for {self._words(node.target)} in {self._words(turns)}"

    def _link(self, sources: Sources, end: int) -> None:
        self.edges |= dict.fromkeys(Edge(start, end) for start in sorted(sources))

    def _body(self, body: Sequence[ast.stmt]) -> bool:
        """Follow statements; whether they always leave the function."""
        for statement in body:
            self.steps += 1
            if self.steps > STEPS:
                raise _Full
            if self._statement(statement):
                return True
        return False

    def _statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.Return():
                value = node.value
                if isinstance(value, ast.Tuple) and value.elts and not self.calls:
                    value = value.elts[0]  # (answer, cost)
                sources = self._read(value)
                if self.calls:
                    self.returned.append(sources)
                else:
                    self._link(sources, self._node(("return", id(node)), "return", "return"))
                return True
            case ast.Raise():
                self._read(node.exc)
                return True
            case ast.Assign():
                for target in node.targets:
                    self._assign(target, node.value)
            case ast.AnnAssign():
                self._assign(node.target, node.value)
            case ast.AugAssign():
                self._keep(_name(node.target), self._read(node.value), add=True)
            case ast.Expr():
                self._read(node.value)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.functions[node.name] = node
            case ast.If():
                return self._branch(node, "if")
            case ast.For() | ast.AsyncFor() | ast.While():
                self._loop(node)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, item.context_expr)
                    else:
                        self._read(item.context_expr)
                return self._body(node.body)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.Match():
                sources = self._read(node.subject)
                before, after = dict(self.held), dict(self.held)
                for case in node.cases:
                    self.held = dict(before)
                    with self._block(case, f"case {self._words(case.pattern)}", sources):
                        if not self._body(case.body):
                            after = _merged(after, self.held)
                self.held = after
            case ast.Break() if self.loops:
                self._node(("break", id(node)), "break", "break")
            case _:
                pass
        return False

    def _branch(self, node: ast.If, word: str) -> bool:
        sources = self._read(node.test)
        before = dict(self.held)
        with self._block(node, f"{word} {self._words(node.test)}", sources):
            left = self._body(node.body)
        yes, self.held = self.held, before
        if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            other = self._branch(node.orelse[0], "elif")
        else:
            with self._block(node, "else", sources):
                other = self._body(node.orelse)
        if left or other:
            self.held = self.held if left else yes
        else:
            self.held = _merged(yes, self.held)
        return left and other

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        label = self._loop_label(node)
        self.loops += 1
        for _ in range(2):
            before = dict(self.held)
            if isinstance(node, ast.While):
                sources = self._read(node.test)
            else:
                sources = self._read(node.iter)
                self._bind(node.target, sources, node.iter)
            with self._block(node, label, sources if isinstance(node, ast.While) else NONE):
                self._body(node.body)
            self.held = _merged(before, self.held)
        self.loops -= 1
        self._body(node.orelse)

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        before = dict(self.held)
        self._body(node.body)
        self._body(node.orelse)
        after = self.held
        for handler in node.handlers:
            self.held = _merged(before, after)
            caught = f" {self._words(handler.type)}" if handler.type else ""
            with self._block(handler, f"except{caught}"):
                self._body(handler.body)
            after = _merged(after, self.held)
        self.held = after
        self._body(node.finalbody)

    def _assign(self, target: ast.expr, value: ast.expr | None) -> None:
        """Follow `target = value`; several targets at once, where both sides tell them apart."""
        if value is None:
            return
        if isinstance(target, ast.Tuple | ast.List):
            parts = _parts(value)
            if parts is not None and len(parts) == len(target.elts):
                for one, part in zip(target.elts, parts, strict=True):
                    self._assign(one, part)
                return
        name = _name(value)
        if name.startswith("self.") and _name(target):  # an operator under another name
            self.operators[_name(target)] = self.operators.get(name, name[5:])
        self._bind(target, self._read(value), value)

    def _bind(self, target: ast.expr, sources: Sources, value: ast.expr) -> None:
        """Let every variable of a target hold what the value is made of."""
        made = self._agent_in(value)
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._keep(node.id, sources)
                if made:
                    self.agents[node.id] = made
                else:
                    self.agents.pop(node.id, None)
        if not isinstance(target, ast.Name | ast.Tuple | ast.List):  # a part of something
            self._keep(_name(target), sources, add=isinstance(target, ast.Subscript))

    def _keep(self, name: str, sources: Sources, *, add: bool = False) -> None:
        if name:
            self.held[name] = (self.held.get(name, NONE) | sources) if add else sources

    def _read(self, node: ast.AST | None) -> Sources:
        """The nodes that a value is made of; every call in it becomes one, inner ones first."""
        self.steps += 1
        if self.steps > STEPS:
            raise _Full
        match node:
            case None | ast.Constant():
                return NONE
            case ast.Name():
                return self.held.get(node.id, NONE)
            case ast.Attribute():
                return self.held.get(_name(node), NONE) or self._read(node.value)
            case ast.Call():
                return self._call(node)
            case ast.NamedExpr():
                sources = self._read(node.value)
                self._bind(node.target, sources, node.value)
                return sources
            case ast.IfExp():
                sources = self._read(node.test)
                with self._block(node, f"if {self._words(node.test)}", sources):
                    yes = self._read(node.body)
                with self._block(node, "else", sources):
                    return yes | self._read(node.orelse)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                before = dict(self.held)
                for part in node.generators:
                    self._bind(part.target, self._read(part.iter), part.iter)
                with self._block(node, self._loop_label(node.generators[0])):
                    found = self._all(ast.iter_child_nodes(node))
                self.held = before
                return found
            case ast.comprehension():  # its iterable was read before its target was bound
                return self._all(node.ifs)
            case _:
                return self._all(ast.iter_child_nodes(node))

    def _all(self, nodes: Iterable[ast.AST]) -> Sources:
        return NONE.union(*[self._read(node) for node in nodes])

    def _call(self, node: ast.Call) -> Sources:
        name = _name(node.func)
        if name.rpartition(".")[2] == "gather":
            with self._block(node, "at once"):
                return self._all([*node.args, *node.keywords])
        values = [self._read(value) for value in node.args]
        named = {word.arg: self._read(word.value) for word in node.keywords}
        sources = NONE.union(*values, *named.values())
        if name in self.functions and len(self.calls) < 2 * INLINED:  # two a level
            return self._follow(name, node, values, named)
        agent = self._agent(node.func)
        if agent or (label := self._operator(name)):
            label, hint = agent or (label, "")
            sources |= self._read(node.func) if agent else NONE  # what it was made with
            made = self.made.get(((id(node),), self.calls))
            if made is None:
                hints = [hint, *_hints(node)]
                made = self._node((id(node),), "call", label, ", ".join(x for x in hints if x))
            self._link(sources, made)
            return frozenset({made})
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in GROWS:
                self._keep(_name(node.func.value), sources, add=True)
            sources |= self._read(node.func.value)
        return sources

    def _operator(self, name: str) -> str:
        """What a called name stands for when it asks something; empty when it does not."""
        if name in self.operators:
            return self.operators[name]
        if name in ("self.llm", "self.llm.aask", "self.llm.ask"):
            return "llm"
        own = name.removeprefix("self.")
        return own if own != name and "." not in own else ""

    def _agent(self, made: ast.expr) -> tuple[str, str] | None:
        """(name, hint) of the agent that an expression is: `agent`, `agents[0]`, `agent.query`."""
        while isinstance(made, ast.Subscript | ast.Attribute):
            made = made.value
        if isinstance(made, ast.Call) and _name(made.func) == "LLMAgentBase":
            return _agent_named(made)
        return self.agents.get(made.id) if isinstance(made, ast.Name) else None

    def _agent_in(self, value: ast.expr) -> tuple[str, str] | None:
        """The agent, or one of the agents, that a value holds: made there, or handed on."""
        if isinstance(value, ast.Await) or (
            isinstance(value, ast.Call) and self._agent(value.func) and _name(value.func)
        ):
            return None  # what an agent answers is none
        for node in ast.walk(value):
            if isinstance(node, ast.Call) and _name(node.func) == "LLMAgentBase":
                return _agent_named(node)
        names = [value, *(value.args if isinstance(value, ast.Call) else ())]
        known = [self.agents.get(n.id) for n in names if isinstance(n, ast.Name)]
        return next((found for found in known if found), None)

    def _follow(
        self,
        name: str,
        node: ast.Call,
        values: Sequence[Sources],
        named: dict[str | None, Sources],
    ) -> Sources:
        """The results of a helper of the workflow's own: its calls count as made here."""
        function = self.functions[name]
        if id(function) in self.calls[1::2]:  # it calls itself
            return NONE.union(*values, *named.values())
        parameters = [p for p in _parameters(function) if p != "self"]
        given = dict(zip(parameters, values, strict=False))
        given |= {word: sources for word, sources in named.items() if word is not None}
        before, calls, returned = dict(self.held), self.calls, self.returned
        self.held |= given
        with self._block(node, f"{name.removeprefix('self.')}()"):
            self.calls, self.returned = (*calls, id(node), id(function)), []
            self._body(function.body)
        found = NONE.union(*self.returned)
        kept = {k: v for k, v in self.held.items() if k.startswith("self.")}
        self.held, self.calls, self.returned = before | kept, calls, returned
        return found


def _merged(one: dict[str, Sources], other: dict[str, Sources]) -> dict[str, Sources]:
    return {name: one.get(name, NONE) | other.get(name, NONE) for name in {**one, **other}}


def _name(node: ast.AST) -> str:
    """A variable as text, `x` or `self.x`; of `x[0]` or `x.a` that of `x`; empty for the rest."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript):
            parts.clear()
        else:
            parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return node.id if not parts else ".".join([node.id, *reversed(parts)])


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    return [p.arg for p in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def _parts(value: ast.expr) -> list[ast.expr] | None:
    """The values of a tuple, or of what is awaited at once; None where they are not told apart."""
    if isinstance(value, ast.Tuple | ast.List):
        return value.elts
    gathered = value.value if isinstance(value, ast.Await) else None
    if isinstance(gathered, ast.Call) and _name(gathered.func).endswith("gather"):
        parts = gathered.args
        return None if any(isinstance(part, ast.Starred) for part in parts) else parts
    return None


def _agent_named(made: ast.Call) -> tuple[str, str]:
    """(name, hint) of `LLMAgentBase(fields, name, role=, model=, temperature=)`."""
    words = {word.arg: word.value for word in made.keywords}
    name = words.get("agent_name", made.args[1] if len(made.args) > 1 else None)
    label = name.value if isinstance(name, ast.Constant) else "agent"
    return str(label), ", ".join(_hints(made))


def _hints(call: ast.Call) -> list[str]:
    """What tells one call of an operator from another: prompts, model, temperature, format."""
    found = [
        node.attr
        for value in (*call.args, *(word.value for word in call.keywords))
        for node in ast.walk(value)
        if isinstance(node, ast.Attribute) and _name(node.value) == PROMPTS
    ]
    for word in call.keywords:
        if word.arg in SETTINGS:
            value = word.value
            said = str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value)
            found.append(f"{SETTINGS[word.arg]}{said}")
    return list(dict.fromkeys(found))


def shown(text: str, most: int = LABEL) -> str:
    """`text` on one line of at most `most` characters, what could steer a terminal as escapes."""
    line = " ".join(text.split())
    line = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in line)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def text(graph: Graph, width: int = 100) -> str:
    """A compact drawing for a terminal: one line a step, blocks indented, no line over `width`.

    `<- 1, (3)`: made of what 1 gave, and 3 in the loop's turn before; `[2]`: what 2 gave decides.
    """
    if graph.error is not None:
        return shown(f"not drawn: {graph.error}", width)
    into: dict[int, list[int]] = {}
    for edge in graph.edges:
        into.setdefault(edge.end, []).append(edge.start)
    labels = {block.number: block for block in graph.blocks}
    calls = [node.number for node in graph.nodes if node.kind == "call"]
    place = {number: str(at) for at, number in enumerate(calls, 1)}
    lines: list[str] = []
    open_blocks: tuple[int, ...] = ()
    for node in graph.nodes:
        shared = 0
        while node.within[: shared + 1] == open_blocks[: shared + 1] and shared < len(node.within):
            shared += 1
        for depth in range(shared, len(node.within)):
            block = labels[node.within[depth]]
            after = f"  [{', '.join(place[n] for n in block.after)}]" if block.after else ""
            lines.append(_indented(depth, f"{block.label}{after}", width))
        open_blocks = node.within
        hint = f" ({node.hint})" if node.hint else ""
        starts = [n for n in into.get(node.number, ()) if n != 0]
        told = [place[n] if n < node.number else f"({place[n]})" for n in starts]
        source = f" <- {', '.join(told)}" if told else ""
        number = f"{place[node.number]} " if node.kind == "call" else ""
        lines.append(_indented(len(node.within), f"{number}{node.label}{hint}{source}", width))
    if graph.cut:
        lines.append("and more: too large to be drawn as a whole")
    return "\n".join(lines)


def _indented(depth: int, line: str, width: int) -> str:
    space = "  " * min(depth, 20)
    return space + shown(line, width - len(space))


def dot(graph: Graph) -> str:
    """The graph in Graphviz's language; every label quoted."""
    lines = [
        "digraph workflow {",
        "rankdir=TB; bgcolor=white",
        'node [shape=box, style=rounded, fontname="sans-serif", fontsize=11]',
        'edge [fontname="sans-serif", fontsize=9]',
    ]
    if graph.error is not None:
        return "\n".join(
            [*lines, f"n0 [shape=note, label={quoted(f'not drawn: {graph.error}')}]", "}"]
        )
    shapes = {"input": "oval", "return": "oval", "break": "plaintext", "call": "box"}

    def nested(depth: int, nodes: Sequence[Node]) -> Iterator[str]:
        """Nodes and, around those of one block, a frame."""
        at = 0
        while at < len(nodes):
            node = nodes[at]
            if len(node.within) == depth:
                label = quoted(node.label, node.hint)
                yield f"n{node.number} [shape={shapes[node.kind]}, label={label}]"
                at += 1
                continue
            block = node.within[depth]
            members = [n for n in nodes if n.within[depth : depth + 1] == (block,)]
            nodes = [n for n in nodes if n not in members or n is node]
            at = nodes.index(node) + 1
            yield f"subgraph cluster_{block} {{"
            yield f'style=dashed; fontname="sans-serif"; fontsize=10; label={quoted(labels[block])}'
            yield from nested(depth + 1, members)
            yield "}"

    labels = {block.number: block.label for block in graph.blocks}
    lines += nested(0, graph.nodes)
    for edge in graph.edges:
        again = " [style=dashed, constraint=false]" if edge.start >= edge.end else ""
        lines.append(f"n{edge.start} -> n{edge.end}{again}")
    drawn = {(edge.start, edge.end) for edge in graph.edges}
    for block in graph.blocks:
        first = next(n.number for n in graph.nodes if block.number in n.within)
        for number in block.after:
            if (number, first) not in drawn and number != first:
                again = ", constraint=false" if number > first else ""
                lines.append(f"n{number} -> n{first} [style=dotted{again}]")
    if graph.cut:
        lines.append('more [shape=plaintext, label="and more"]')
    return "\n".join([*lines, "}"])


def quoted(*lines: str) -> str:
    """A label of one or more lines, in which no character means anything to Graphviz."""
    marks = {"\\": "\\\\", '"': '\\"', "&": "&amp;"}
    kept = (shown(line) for line in lines if line)
    return '"' + "\\n".join("".join(marks.get(c, c) for c in line) for line in kept) + '"'
