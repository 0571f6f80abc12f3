"""Agents written as code (ADAS): what is accepted, what they ask, what comes back as data."""

import json

import pytest

from baselines.adas_agents import OPERATORS, SEEDS, read_fields, render
from baselines.operators import solve_prompt
from harness.errors import ModelUnavailable, RequestRejected
from harness.types import Level, Sampling, WorkflowLimits
from tests.support import DOUBLE, Desk

GOOD = "def double(x):\n    return 2 * x"
BAD = "def double(x):\n    return x"
CODE = {name: code for name, _, code in SEEDS}


def told(**fields):
    return json.dumps(fields)


def thought(code):
    return told(thinking="because", code=code)


async def run(desk, code, **limits):
    return await desk.ctx.run_workflow(
        code,
        solve_prompt(desk.ctx.problem),
        operators=OPERATORS,
        contract="agent",
        limits=WorkflowLimits(**limits),
    )


def forward(body):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"def forward(self, taskInfo):\n{lines}"


# --- the contract ---


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("a text", forward("return 'done'"), "done"),
        ("an Info", forward("return Info('code', 'me', 'x = 1', -1)"), "x = 1"),
        ("the task", forward("return taskInfo"), solve_prompt(DOUBLE)),
        (
            "all that an agent answered",
            forward("a = LLMAgentBase(['code', 'thinking'], 'A')\nreturn a([taskInfo], 'go')"),
            "one",
        ),
        (
            "unpacked and by number",
            forward(
                "a = LLMAgentBase(['thinking', 'code'], 'A')\n"
                "t, c = a([taskInfo], 'go')\nreturn t.content + a.query([t, c], 'go', 3)[1].content"
            ),
            "whytwo",
        ),
        (
            "names, authors and iterations",
            forward(
                "a = LLMAgentBase(['code'], 'A')\nb = LLMAgentBase(['code'], 'A')\n"
                "i = b([taskInfo], 'go', 3)[0]\n"
                "return f'{i.name} {i.author} {i.iteration_idx} {i} {taskInfo.author}'"
            ),
            "code A 2 3 one User",
        ),
        (
            "inputs that are no list of Infos",
            forward(
                "a = LLMAgentBase('code', 'A')\nfirst = a(taskInfo, 'go')\n"
                "return a([taskInfo, [first, 'a text'], None], 'go')[0]"
            ),
            "two",
        ),
        (
            "an async agent",
            "async def forward(self, taskInfo):\n"
            "    await asyncio.sleep(0)\n"
            "    a = LLMAgentBase(['code'], 'A')\n"
            "    found = await asyncio.gather(a([taskInfo], '1'), a([taskInfo], '2'))\n"
            "    return found[0][0].content + found[1][0].content",
            "onetwo",
        ),
        ("without self", "def forward(taskInfo):\n    return taskInfo.name", "task"),
        (
            "inside a class",
            "class AgentArchitecture:\n    def forward(self, taskInfo):\n"
            "        return str(self.run_examples('def double(x): return 2 * x'))",
            "('2 of 2 examples pass.', 2, 2)",
        ),
        (
            "helpers beside it",
            "import re\nN = 2\ndef helper(x):\n    return re.sub('a', 'b', x) * N\n"
            + forward("return helper('a')"),
            "bb",
        ),
        ("draws that repeat", forward("return str(random.random())"), "0.8444218515250481"),
    ],
)
async def test_the_contract_takes_what_meta_agents_write(desk, name, code, expected):
    replies = told(thinking="why", code="one"), told(thinking="or", code="two")
    found = await run(desk(*replies), code)
    assert found.error is None
    assert found.answer == expected


@pytest.mark.parametrize(
    ("code", "error_class", "says"),
    [
        ("", "load:NameError", "no function forward"),
        ("def forward(self, taskInfo:\n", "load:SyntaxError", "(line 1)"),
        ("import no_such_module", "load:ModuleNotFoundError", "(line 1)"),
        ("forward = 5", "load:NameError", "no function forward"),
        ("while True: pass", "limit:TimeLimit", "of its own"),
        (forward("return None"), "run:ValueError", "returned None"),
        (forward("return 5"), "run:TypeError", "returned int"),
        (forward("return [taskInfo.name, 5][1:]"), "run:TypeError", "returned list"),
        (forward("x = 1\nreturn program"), "run:NameError", "(line 3)"),
        (forward("return LLMAgentBase()"), "run:TypeError", "output_fields"),
        (forward("return LLMAgentBase([], 'A')([taskInfo], 'x')"), "run:ValueError", "fields"),
        (
            forward("return LLMAgentBase(['a', 'a'], 'A')([taskInfo], 'x')"),
            "run:ValueError",
            "each once",
        ),
        (
            forward("return LLMAgentBase(['a'], 'A', temperature=9)([taskInfo], 'x')"),
            "run:ValueError",
            "0 to 2",
        ),
        (
            forward("return LLMAgentBase(['a'], 'A', model='gpt-9')([taskInfo], 'x')"),
            "run:ValueError",
            "scripted/worker",
        ),
        (forward("a, b, c = self.run_examples('x')\nraise SystemExit"), "run:SystemExit", "run"),
        (forward("import os\nos._exit(3)"), "run:exit", "exit status 3"),
        ("async def forward(self, taskInfo):\n    await 5", "run:TypeError", "(line 2)"),
    ],
)
async def test_errors_come_back_as_one_line_of_data(desk, code, error_class, says):
    made = desk()
    found = await run(made, code, own_s=2.0)
    assert found.answer is None
    assert found.error_class is not None
    assert found.error_class.startswith(error_class)
    assert says in (found.error or "")
    assert "\n" not in (found.error or "")
    assert made.models["worker"].requests == []


async def test_an_agent_that_takes_all_memory_is_told_so(desk):
    found = await run(desk(), forward("x = []\nwhile True: x.append(bytearray(10**6))"))
    assert found.error_class in ("run:MemoryError", "run:memory")


async def test_calls_in_a_pool_of_threads_are_answered_beside_each_other(tmp_path, grader):
    made = Desk(tmp_path, grader, {"worker": lambda messages: thought("x")})
    code = forward(
        "a = LLMAgentBase(['thinking', 'code'], 'A')\n"
        "def one(i):\n    return a([taskInfo], f'number {i}', i)[1].iteration_idx\n"
        "with ThreadPoolExecutor(32) as pool:\n"
        "    return str(sorted(pool.map(one, range(64))) == list(range(64)))"
    )
    found = await run(made, code, calls=64)
    assert (found.answer, found.error, found.calls) == ("True", None, 64)
    asked = {text.split("# Instruction\n")[1].split("\n")[0] for text in made.asked()}
    assert asked == {f"number {i}" for i in range(64)}


async def test_an_agent_that_asks_without_end_is_ended(tmp_path, grader):
    made = Desk(tmp_path, grader, {"worker": lambda messages: "nothing"})
    code = forward("a = LLMAgentBase(['code'], 'A')\nwhile True: a([taskInfo], 'go')")
    found = await run(made, code, calls=5)
    assert (found.error_class, found.calls) == ("limit:CallLimit", 5)
    assert len(made.models["worker"].requests) == 5


async def test_a_rejected_request_is_an_exception_that_the_agent_may_catch(desk):
    code = forward(
        "a = LLMAgentBase(['code'], 'A')\n"
        "try:\n    a([taskInfo], 'go')\nexcept RuntimeError as error:\n    return str(error)"
    )
    found = await run(desk(RequestRejected("too long")), code)
    assert found.answer == "agent: too long"


async def test_a_rejected_request_that_it_does_not_catch_is_its_error(desk):
    found = await run(desk(RequestRejected("too long")), CODE["Chain of thought"])
    assert (found.error_class, found.calls) == ("run:RuntimeError", 1)


async def test_a_providers_failure_is_not_the_agents(desk, monkeypatch):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.001)
    made = desk(*[ModelUnavailable("down")] * 5)
    with pytest.raises(ModelUnavailable):
        await run(made, CODE["Chain of thought"])


# --- one question ---


async def test_an_agent_is_told_its_role_its_inputs_and_the_form_of_the_reply(desk):
    made = desk(thought(BAD), thought(GOOD))
    code = forward(
        "a = LLMAgentBase(['thinking', 'code'], 'Solver', role='tester', temperature=0.25)\n"
        "thinking, code = a([taskInfo], 'Begin.', 0)\n"
        "return a([taskInfo, thinking, code, Info('told', 'Critic 1', 'wrong', 0)], 'Again.')[1]"
    )
    assert (await run(made, code)).answer == GOOD
    first, second = made.asked()
    form = (
        "`code` is a text that holds the complete Python program with the function `double` and "
        "everything that it needs, without tests. It stands in the JSON object, whatever the task "
        "says of code blocks.\n\n"
        "Reply with one JSON object with exactly these fields: thinking, code."
    )
    task = f"You are a tester.\n\n# Task\n{solve_prompt(DOUBLE)}\n\n"
    assert first == f"{task}# Instruction\nBegin.\n\n{form}"
    assert second == (
        f"{task}## thinking 1 by Solver 1 (yourself)\nbecause\n\n"
        f"## code 1 by Solver 1 (yourself)\n```python\n{BAD}\n```\n\n"
        f"## told 1 by Critic 1\nwrong\n\n# Instruction\nAgain.\n\n{form}"
    )
    assert [r["temperature"] for r in made.models["worker"].requests] == [0.25, 0.25]
    assert [r["operator"] for r in made.records("call")] == ["agent", "agent"]


def test_a_program_with_a_fence_of_its_own_stays_whole():
    text = render("f", ["code"], "A", "tester", [["code", "B", "x = '```'", -1]], "Go.")
    assert "## code by B\n~~~~python\nx = '```'\n~~~~\n" in text


async def test_a_node_may_ask_another_model(tmp_path, grader):
    replies = {"worker": [], "strong": [told(code=GOOD)]}
    made = Desk(tmp_path, grader, replies)
    code = forward("return LLMAgentBase(['code'], 'A', model='strong')([taskInfo], 'go')")
    assert (await run(made, code)).answer == GOOD
    assert len(made.asked("strong")) == 1


async def test_missing_fields_are_empty_and_recorded(desk):
    made = desk("I cannot", told(feedback="fine"))
    code = forward(
        "a = LLMAgentBase(['code'], 'A')\nb = LLMAgentBase(['feedback', 'correct'], 'B')\n"
        "return repr([i.content for i in a([taskInfo], '1') + b([taskInfo], '2')])"
    )
    assert (await run(made, code)).answer == "['', 'fine', '']"
    notes = [(r["agent"], r["missing"]) for r in made.records("fields")]
    assert notes == [("A 1", ["code"]), ("B 1", ["correct"])]


TWO = ["thinking", "code"]
DOCUMENTED = 'def double(x):\n    """ Twice x.\n    >>> double(1)\n    2\n    """\n    return 2 * x'
BROKEN_JSON = '{"thinking": "say "x", then", "code": "def double(x):\\n    return \\"a\\" * x"}'


@pytest.mark.parametrize(
    ("reply", "fields", "expected"),
    [
        (thought(GOOD), TWO, {"thinking": "because", "code": GOOD}),
        (
            f"Sure:\n```json\n{thought(GOOD)}\n```\nDone.",
            TWO,
            {"thinking": "because", "code": GOOD},
        ),
        (thought(BAD) + "\nNo:\n" + thought(GOOD), TWO, {"thinking": "because", "code": GOOD}),
        (f"<think>{thought(BAD)}</think>{thought(GOOD)}", ["code"], {"code": GOOD}),
        (told(code=GOOD, thinking="late"), TWO, {"thinking": "late", "code": GOOD}),
        (told(code=f"```python\n{GOOD}\n```"), ["code"], {"code": GOOD}),
        (told(code=GOOD.replace("\n", "\\n")), ["code"], {"code": GOOD}),
        (told(code=GOOD.splitlines()), ["code"], {"code": GOOD}),
        (told(code="s = 'a\\n'\nt = 1"), ["code"], {"code": "s = 'a\\n'\nt = 1"}),
        (f'{{"thinking": "t", "code": "{GOOD}"}}', TWO, {"thinking": "t", "code": GOOD}),
        (f'{{"thinking": "t", "code": """{GOOD}"""}}', TWO, {"thinking": "t", "code": GOOD}),
        (f"{{'thinking': 't', 'code': '''{GOOD}'''}}", TWO, {"thinking": "t", "code": GOOD}),
        (
            f'{{"thinking": "t", "code":\n```python\n{GOOD}\n```\n}}',
            TWO,
            {"thinking": "t", "code": GOOD},
        ),
        (
            BROKEN_JSON,
            TWO,
            {"thinking": 'say "x", then', "code": 'def double(x):\n    return "a" * x'},
        ),
        # as a small model writes it: Python's quotes, and none at the end
        (
            f'```json\n{{\n  "thinking": ["t"],\n  "code": """\n{DOCUMENTED}\n  """\n}}\n```',
            ["code"],
            {"code": DOCUMENTED},
        ),
        (
            f'```json\n{{\n  "code": """\npython\n{DOCUMENTED}\n```\nNote that it is "short".',
            ["code"],
            {"code": DOCUMENTED},
        ),
        (f'{{"code": "{DOCUMENTED}\n}}\nThat is all.', ["code"], {"code": DOCUMENTED}),
        (f'{{"thinking": "t"}}\n```python\n{GOOD}\n```', TWO, {"thinking": "t", "code": GOOD}),
        (
            f"Thinking: t\nCode:\n```python\n{GOOD}\n```",
            TWO,
            {"thinking": "t", "code": GOOD},
        ),
        (
            f"I would\n```python\n{GOOD}\n```",
            TWO,
            {"thinking": f"I would\n```python\n{GOOD}\n```", "code": GOOD},
        ),
        (GOOD, ["code"], {"code": GOOD}),
        ("**feedback**: wrong\ncorrect: False", ["feedback", "correct"], None),
        ('{"feedback": ["a", "b"], "correct": true}', ["feedback", "correct"], None),
        ('{"correct": {"a": 1}, "feedback": null}', ["feedback", "correct"], None),
        (
            told(test_code="assert double(1) == 2"),
            ["test_code"],
            {"test_code": "assert double(1) == 2"},
        ),
        ("```json\n{broken\n```", TWO, {"thinking": "```json\n{broken\n```"}),
        ("no", TWO, {"thinking": "no"}),
        ("", TWO, {}),
        ("{" * 5000, ["code"], {}),
    ],
)
def test_fields_are_read_from_untidy_replies(reply, fields, expected):
    if expected is None:
        expected = {
            "**": {"feedback": "wrong", "correct": "False"},
            '{"': {"feedback": "a\nb", "correct": "True"},
        }[reply[:2]]
        if "null" in reply:
            expected = {"feedback": "", "correct": '{"a": 1}'}
    assert read_fields(reply, fields, "double") == expected


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (Level.L0, ["There is no example to run.", 0, 0]),
        (Level.L2, ["1 of 2 examples pass.", 1, 2]),
        (Level.L3, ["1 of 2 examples pass.\n- assert double(2) == 4: wrong got 2", 1, 2]),
    ],
)
async def test_examples_tell_what_the_level_allows(desk, level, expected):
    code = forward(f"return json.dumps(self.run_examples(Info('code', 'A', {BAD!r}, 0)))")
    found = await run(desk(level=level), code)
    assert json.loads(found.answer or "") == expected


# --- the seven seeds ---


def instructions(desk):
    return [t.split("# Instruction\n")[1].split("\n\n`code`")[0] for t in desk.asked()]


async def test_chain_of_thought_asks_once(desk):
    made = desk(thought(GOOD))
    found = await run(made, CODE["Chain of thought"])
    assert (found.answer, found.calls) == (GOOD, 1)


OTHER, COMMENTED = "def double(x):\n    return x + x", GOOD + "  # twice"


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ((BAD, OTHER, GOOD, "", COMMENTED), GOOD),
        ((BAD, OTHER, GOOD, OTHER, COMMENTED), OTHER),  # the first on ties
        (("", "", "", "", BAD), BAD),
    ],
)
async def test_self_consistency_takes_the_majority_of_five(desk, programs, expected):
    made = desk(*map(thought, programs))
    found = await run(made, CODE["Self-consistency"])
    assert (found.answer, found.calls) == (expected, 5)
    assert {r["temperature"] for r in made.models["worker"].requests} == {0.8}
    assert len(set(made.asked())) == 1


async def test_self_refine_stops_when_the_examples_pass(desk):
    made = desk(thought(BAD), thought(GOOD))
    found = await run(made, CODE["Self-refine"])
    assert (found.answer, found.calls) == (GOOD, 2)
    assert "## feedback 1 by examples\n1 of 2 examples pass.\n- assert double(2)" in made.asked()[1]


async def test_self_refine_makes_five_attempts_at_most(desk):
    made = desk(*[thought(BAD)] * 5)
    found = await run(made, CODE["Self-refine"])
    assert (found.answer, found.calls) == (BAD, 5)
    assert found.operators.count("run_examples") == 4


async def test_without_examples_the_critic_stops_self_refine(desk):
    no, yes = told(feedback="wrong", correct="False"), told(feedback="fine", correct=True)
    made = desk(thought(BAD), no, thought(GOOD), yes, level=Level.L0)
    found = await run(made, CODE["Self-refine"])
    assert (found.answer, found.calls) == (GOOD, 4)


async def test_a_critic_that_answers_nonsense_does_not_stop_self_refine(desk):
    made = desk(*[thought(BAD), "42"] * 4, thought(BAD), level=Level.L0)
    assert (await run(made, CODE["Self-refine"])).calls == 9


async def test_debate_has_three_roles_two_rounds_and_a_judge(desk):
    drafts = [thought(f"def double(x):\n    return {i}") for i in range(6)]
    made = desk(*drafts, thought(GOOD))
    found = await run(made, CODE["Debate"])
    assert (found.answer, found.calls) == (GOOD, 7)
    asked = made.asked()
    roles = [text.split(".\n")[0] for text in asked]
    assert roles[:3] == roles[3:6]
    assert len(set(roles[:3])) == 3
    assert roles[6] == "You are a helpful assistant"
    shown = [[i for i in range(6) if f"return {i}\n" in text] for text in asked]
    assert shown == [[], [], [], [0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 4, 5]]
    temperatures = [r["temperature"] for r in made.models["worker"].requests]
    assert temperatures == [0.8] * 6 + [0.1]


async def test_step_back_shows_the_principles_to_the_solver(desk):
    made = desk(told(thinking="hm", principles="numbers add"), thought(GOOD))
    assert (await run(made, CODE["Step back"])).answer == GOOD
    assert "## principles by Principles 1\nnumbers add" in made.asked()[1]


async def test_quality_diversity_shows_every_attempt_to_the_next_and_the_judge(desk):
    drafts = [thought(f"def double(x):\n    return {i}") for i in range(3)]
    made = desk(*drafts, thought(GOOD))
    found = await run(made, CODE["Quality and diversity"])
    assert (found.answer, found.calls) == (GOOD, 4)
    shown = [[i for i in range(3) if f"return {i}\n" in text] for text in made.asked()]
    assert shown == [[], [0], [0, 1], [0, 1, 2]]


@pytest.mark.parametrize(
    ("choice", "role"),
    [
        ("Mathematics!", "mathematician"),
        ("libraries", "standard library"),
        ("nobody", "designer of efficient algorithms"),
    ],
)
async def test_role_assignment_lets_the_chosen_expert_answer(desk, choice, role):
    made = desk(told(choice=choice), thought(GOOD))
    assert (await run(made, CODE["Role assignment"])).answer == GOOD
    assert role in made.asked()[1].split("\n")[0]


@pytest.mark.parametrize("name", CODE)
async def test_every_seed_lives_through_a_worker_that_never_answers_in_form(tmp_path, grader, name):
    made = Desk(
        tmp_path,
        grader,
        {"worker": lambda messages: "no idea"},
        sampling={"worker": Sampling(temperature=0.5)},
    )
    found = await run(made, CODE[name])
    assert (found.answer, found.error) == ("", None)
