"""A workflow's picture says what its code says, whatever a model wrote, and lets none of it out."""

import json
import re
import subprocess
import sys
import time

import pytest

from baselines.workflows import TEMPLATE
from harness.graph import NODES, dot, shown, text, workflow_graph
from harness.tree import SearchNode, best_of, best_words, nodes_of, steps_of, tree_dot, tree_text

HEAD = "class Workflow:\n    async def __call__(self, problem, entry_point):\n"
HOSTILE = '"];x[URL="javascript:alert(1)"];\\N&lt;'


def workflow(*lines: str) -> str:
    return HEAD + "".join(f"        {line}\n" for line in lines)


def drawn(*lines: str) -> list[str]:
    return text(workflow_graph(workflow(*lines))).splitlines()


def edges(code: str) -> set[tuple[str, str]]:
    """(label, label) of every edge."""
    graph = workflow_graph(code)
    names = {node.number: node.label for node in graph.nodes}
    return {(names[edge.start], names[edge.end]) for edge in graph.edges}


def test_the_template_is_one_call_between_input_and_answer():
    graph = workflow_graph(TEMPLATE)
    assert [(n.kind, n.label) for n in graph.nodes] == [
        ("input", "input"), ("call", "custom_code_generate"), ("return", "return"),
    ]  # fmt: skip
    assert edges(TEMPLATE) == {
        ("input", "custom_code_generate"),
        ("custom_code_generate", "return"),
    }
    assert text(graph).splitlines() == [
        "input (problem, entry_point)", "1 custom_code_generate", "return <- 1",
    ]  # fmt: skip


def test_what_a_call_is_made_of_and_with_is_told():
    assert drawn(
        "plan = await self.custom(input=problem, instruction=prompt_custom.PLAN, temperature=0.7)",
        "a = await self.custom_code_generate(problem, entry_point, plan['response'], model='big')",
        "b = await self.review(problem=problem, solution=a, output_format='json')",
        "return a['response'] + b, self.llm.cost_manager.total_cost",
    ) == [
        "input (problem, entry_point)",
        "1 custom (PLAN, T=0.7)",
        "2 custom_code_generate (model=big) <- 1",
        "3 review (format=json) <- 2",
        "return <- 2, 3",
    ]


def test_loops_branches_and_what_goes_round_are_blocks_and_edges():
    assert drawn(
        "solutions = []",
        "for _ in range(3):",
        "    s = await self.custom_code_generate(problem=problem)",
        "    solutions.append(s['response'])",
        "best = await self.sc_ensemble(solutions=solutions, problem=problem)",
        "while tries < 2:",
        "    result = await self.test(problem=problem, solution=best)",
        "    if result['result']:",
        "        break",
        "    best = await self.revise(problem, best, result['feedback'])",
        "return best",
    ) == [
        "input (problem, entry_point)",
        "loop x3",
        "  1 custom_code_generate",
        "2 sc_ensemble <- 1",
        "while tries < 2",
        "  3 test <- 2, (4)",
        "  if result['result'] [3]",
        "    break",
        "  4 revise <- 2, 3, (4)",
        "return <- 2, 4",
    ]


def test_a_branch_that_returns_hands_nothing_on():
    lines = drawn(
        "a = await self.custom_code_generate(problem=problem)",
        "if a:",
        "    a = await self.review(problem, a)",
        "    return a",
        "elif entry_point:",
        "    a = await self.revise(problem, a, 'x')",
        "return a",
    )
    assert lines[-1] == "return <- 1, 3"
    assert "elif entry_point" in lines


def test_calls_at_once_and_helpers_of_its_own_are_followed():
    assert drawn(
        "async def attempt(hint):",
        "    plan = await self.custom(problem, hint)",
        "    return await self.custom_code_generate(problem=problem, instruction=plan)",
        "found = await asyncio.gather(*[attempt(i) for i in range(4)])",
        "a, b = await asyncio.gather(self.review(problem, found[0]), self.format(problem, 'x'))",
        "return b",
    ) == [
        "input (problem, entry_point)",
        "at once",
        "  loop x4",
        "    attempt()",
        "      1 custom",
        "      2 custom_code_generate <- 1",
        "3 review <- 2",
        "4 format",
        "return <- 4",
    ]


def test_helpers_that_call_helpers_are_followed_four_deep():
    helpers = [
        line
        for at in range(5)
        for line in (f"async def h{at}(x):", f"    return await h{at + 1}(x)")
    ]
    last = ["async def h5(x):", "    return await self.custom(problem, x)"]
    four = workflow(*helpers[2:], *last, "return await h2(problem)")  # h2, h3, h4, h5
    five = workflow(*helpers[2:], *last, "return await h1(problem)")
    assert [n.label for n in workflow_graph(four).nodes] == ["input", "custom", "return"]
    assert [n.label for n in workflow_graph(five).nodes] == ["input", "return"]


def test_a_method_that_calls_itself_is_followed_once():
    code = workflow("return await self.again(problem)") + (
        "    async def again(self, text):\n"
        "        r = await self.custom(text, 'x')\n"
        "        return await self.again(r)\n"
    )
    assert [n.label for n in workflow_graph(code).nodes] == ["input", "custom", "return"]


def test_operators_keep_their_names_under_others():
    code = (
        "class Workflow:\n"
        "    def __init__(self, name, llm_config, dataset):\n"
        "        self.mine = operator.CustomCodeGenerate(create(llm_config))\n"
        "    async def __call__(self, problem):\n"
        "        ask = self.sc_ensemble\n"
        "        return await ask([await self.mine(problem), await self.llm('x')], problem)\n"
    )
    labels = [n.label for n in workflow_graph(code).nodes]
    assert labels == ["input", "custom_code_generate", "llm", "sc_ensemble", "return"]


def test_a_workflow_of_another_contract_is_drawn_too():
    scoreflow = (
        "class Workflow:\n"
        "    def __init__(self, config, problem):\n"
        "        self.problem = problem\n"
        "    async def run_workflow(self):\n"
        "        s = await self.custom_code_generate(instruction=self.problem)\n"
        "        return await self.test(solution=s)\n"
    )
    assert text(workflow_graph(scoreflow)).splitlines()[1:] == [
        "1 custom_code_generate", "2 test <- 1", "return <- 2",
    ]  # fmt: skip
    agents = (
        "def forward(self, taskInfo):\n"
        "    first = LLMAgentBase(['thinking', 'code'], 'Drafter', temperature=0.8)\n"
        "    critics = [LLMAgentBase(['note'], 'Critic', role=r) for r in ('a', 'b')]\n"
        "    thinking, code = first([taskInfo], 'write', 0)\n"
        "    notes = []\n"
        "    for critic in critics:\n"
        "        notes.append(critic([taskInfo, code], 'judge')[0])\n"
        "    told, passed, total = self.run_examples(code)\n"
        "    return LLMAgentBase(['code'], 'Judge')([taskInfo, code, told] + notes, 'decide')[0]\n"
    )
    assert text(workflow_graph(agents)).splitlines() == [
        "input (taskInfo)",
        "1 Drafter (T=0.8)",
        "for critic in critics",
        "  2 Critic (role=r) <- 1",
        "3 run_examples <- 1",
        "4 Judge <- 1, 2, 3",
        "return <- 4",
    ]


def test_what_an_agent_is_made_with_decides_as_well():
    code = (
        "def forward(self, taskInfo):\n"
        "    role = LLMAgentBase(['role'], 'Router')([taskInfo], 'choose')[0]\n"
        "    expert = LLMAgentBase(['code'], 'Expert', role=role.content)\n"
        "    return expert([taskInfo], 'write')[0]\n"
    )
    assert edges(code) == {("input", "Router"), ("Router", "Expert"), ("Expert", "return")}


def test_the_last_class_and_method_of_a_name_count_and_a_nested_one_does_not():
    code = workflow("return await self.custom('a', 'b')") + (
        "    async def __call__(self, problem):\n"
        "        async def __call__(self, problem):\n"
        "            return await self.review(problem, 'x')\n"
        "        return await self.revise(problem, 'x', 'y')\n"
    )
    assert [n.label for n in workflow_graph(code).nodes] == ["input", "revise", "return"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class Workflow:\n  def __call__(self:\n", "SyntaxError: '(' was never closed (line 2)"),
        ("x = 1", "no class Workflow and no function forward"),
        ("class Workflow: pass", "class Workflow has no method __call__"),
        ("\0", "null bytes"),
        ("# \ud800", "UnicodeEncodeError: this code cannot be read"),
        ("(" * 5000 + ")" * 5000, "too many nested parentheses"),
        (HEAD + "        return " + "+".join(["a"] * 50_000), "cannot be read"),
        ("x" * 300_000, "longer than 200,000 characters"),
        ("", "no class Workflow"),
    ],
)
def test_code_that_cannot_be_drawn_is_one_line_in_both_drawings(code, says):
    graph = workflow_graph(code)
    assert graph.nodes == ()
    assert says in (graph.error or "")
    assert text(graph).startswith("not drawn: ")
    assert len(text(graph)) <= 100
    assert "not drawn: " in dot(graph)


def test_a_workflow_without_end_is_cut_and_says_so():
    graph = workflow_graph(workflow(*["await self.custom('a', 'b')"] * 400, "return 'x'"))
    assert (len(graph.nodes), graph.cut) == (NODES, True)
    assert text(graph).endswith("too large to be drawn as a whole")
    assert "and more" in dot(graph)


@pytest.mark.parametrize(
    "lines",
    [
        [f"{' ' * 4 * depth}for x{depth} in range(9):" for depth in range(18)]
        + [f"{' ' * 72}await self.custom('{'y' * 100_000}', 'b')"],
        ["f0 = lambda x: self.custom(x, x)"]
        + [f"async def f{k}(x):\n            await f{k - 1}(x)\n            await f{k - 1}(x)"
           for k in range(1, 60)] + ["await f59('a')"],
        ["x = " + "[" * 80 + "1" + "]" * 80] * 300,
    ],
)  # fmt: skip
def test_no_workflow_takes_long_to_draw(lines):
    started = time.process_time()
    graph = workflow_graph(workflow(*lines))
    assert text(graph)
    assert dot(graph)
    assert time.process_time() - started < 5


def quoted_parts(source: str) -> str:
    """A drawing with every quoted string taken out; what stands outside is ours alone."""
    return re.sub(r'"(?:\\.|[^"\\])*"', "Q", source)


OURS = re.compile(
    r"digraph \w+ \{|rankdir=TB; bgcolor=white|node \[.*\]|edge \[.*\]|subgraph cluster_\d+ \{|\}"
    r"|style=dashed; fontname=Q; fontsize=10; label=Q"
    r"|(n|m)\d+ \[(shape=\w+, )?label=Q(, penwidth=3)?(, style=Q)?\]"
    r"|(n|m)\d+ -> (n|m)\d+( \[style=\w+(, constraint=false)?\])?"
    r"|more \[shape=plaintext, label=Q\]"
)


def hostile_workflow() -> str:
    name = json.dumps(HOSTILE + "\n\x1b[31m\u202e\u2028")
    return workflow(
        f"a = await self.custom(problem, {name}, model={name}, output_format={name})",
        f"while a == {name}:",
        f"    a = await self.custom(problem, prompt_custom.X, temperature={name})",
        "return a",
    )


def test_hostile_labels_stay_inside_their_quotes():
    nodes = [SearchNode(-1, None, HOSTILE, error=HOSTILE), SearchNode(2, -1, HOSTILE, 0.5)]
    for source in (dot(workflow_graph(hostile_workflow())), tree_dot(nodes)):
        assert "alert(1)" in source
        for line in quoted_parts(source).splitlines():
            assert OURS.fullmatch(line), line
        assert all(ch.isprintable() for ch in source if ch != "\n")
        assert "\\\\N&amp;lt;" in source  # to Graphviz, \\N alone is a node's own name
    for source in (text(workflow_graph(hostile_workflow())), tree_text(nodes)):
        assert all(line.isprintable() and len(line) <= 100 for line in source.splitlines())


def test_drawing_needs_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules)\nimport harness.graph\n"
        "print(sorted(n for n in set(sys.modules) - before\n"
        "             if n.partition('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['harness', 'harness.graph']"


def test_a_text_is_shortened_to_one_line():
    assert shown("a\n\t b", 10) == "a b"
    assert shown("x" * 20, 10) == "x" * 9 + "…"
    assert shown("\x1b[2J\ud800") == "\\x1b[2J\\ud800"


TREE = [
    SearchNode(1, None, "the template", 0.35),
    SearchNode(2, 1, "add a review", 0.38, 0.3, 0.46),
    SearchNode(3, 1, "nonsense", 0.0, error="load: SyntaxError"),
    SearchNode(4, 2, "three and an ensemble", 0.413),
    SearchNode(5, 2, "once more", 0.413),
]


def test_a_search_is_a_tree_with_its_best_marked():
    assert tree_text(TREE).splitlines() == [
        "1 35.0 %  the template",
        "├─ 2 38.0 % (30.0 to 46.0)  add a review",
        "│  ├─ 4 * 41.3 %  three and an ensemble",
        "│  └─ 5 41.3 %  once more",
        "└─ 3 0.0 % failed: load: SyntaxError  nonsense",
    ]
    source = tree_dot(TREE)
    assert "n1 -> n2" in source
    assert re.search(r"n4 \[label=\"4 ★.*penwidth=3\]", source)
    assert source.count("penwidth") == 1


def test_the_best_has_the_best_score_then_the_higher_bound_then_the_earlier_round():
    assert best_of([]) is None
    assert best_of([SearchNode(1, error="x")]) is None
    assert best_of(TREE) == TREE[3]
    bounded = [SearchNode(1, None, "", 0.5, 0.2, 0.8), SearchNode(2, None, "", 0.5, 0.3, 0.7)]
    assert best_of(bounded) == bounded[1]


def test_an_archive_stands_in_rows_and_is_no_tree():
    archive = [SearchNode(n, None, f"agent {n}", n / 10) for n in range(6)]
    assert tree_text(archive).splitlines()[-1] == "5 * 50.0 %  agent 5"
    assert "n0 -> n4 [style=invis]" in tree_dot(archive)


def test_a_tree_of_any_shape_is_drawn_once_and_within_its_width():
    chain = [SearchNode(n, n - 1 if n else None, "label " * 30, 0.1) for n in range(400)]
    circle = [SearchNode(1, 2), SearchNode(2, 1), SearchNode(3, 3), SearchNode(4, 99)]
    assert sorted(line.split()[-3] for line in tree_text(circle).splitlines()) == list("1234")
    lines = tree_text(chain).splitlines()
    assert len(lines) == 400
    assert max(map(len, lines)) <= 100
    assert len(tree_text(chain * 2).splitlines()) == 400
    many = tree_text([SearchNode(n) for n in range(700)]).splitlines()
    assert many[-1] == "and 200 more"
    assert "and 200 more" in tree_dot([SearchNode(n) for n in range(700)])


def test_nodes_and_steps_noted_again_count_once():
    records = [
        {"kind": "node", "number": 2, "parent": 1, "label": None, "score": 0.1},
        {"kind": "node", "number": 1, "label": "first", "score": None, "error": "x"},
        {"kind": "node", "number": 2, "parent": 1, "label": "again", "score": 0.2},
        {"kind": "node", "number": "three"},
        {"kind": "step", "at": 1.0, "round": 3, "number": 1, "loss": 0.5, "layers": [["a"]]},
        {"kind": "step", "at": 2.0, "round": 3, "number": 1, "loss": 0.25, "usd": None},
    ]
    assert [(n.number, n.label, n.score) for n in nodes_of(records)] == [
        (1, "first", None), (2, "again", 0.2),
    ]  # fmt: skip
    assert steps_of(records) == [{"number": 1, "loss": 0.25}]


def test_nodes_of_single_problems_have_no_best():
    alone = [SearchNode(n, score=n / 2, about=f"a/{n}") for n in range(3)]
    assert best_of(alone) is None
    assert best_words(alone) == "workflows of single problems"
    assert "*" not in tree_text(alone)
    assert best_words([]) is None
    assert best_words([*alone, SearchNode(7, score=0.25)]) == "best 7: 25.0 %"
