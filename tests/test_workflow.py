"""Model-written workflows: what is accepted, what comes back as data, what they cannot reach."""

import asyncio
import json
import os

import pytest

from baselines.operators import (
    OPERATORS,
    label_of,
    node_options,
    parse_choice,
    parse_fields,
    parse_review,
)
from harness.errors import ModelUnavailable, RequestRejected
from harness.types import Completion, Level, Sampling, WorkflowLimits
from harness.workflow import NODE
from tests.support import DOUBLE, RIGHT, WRONG, Desk

DICTIONARIES = "{'response': 'abc'}{'response': 'abc'}[('response', 'abc')]"
HEAD = "class Workflow:\n    async def __call__(self, problem, entry_point):\n"


async def run(desk, code, prompts=""):
    return await desk.ctx.run_workflow(code, prompts, operators=OPERATORS)


async def test_a_workflow_calls_operators_and_returns_text_and_cost(desk):
    made = desk(RIGHT)
    code = HEAD + (
        "        s = await self.custom_code_generate(problem=problem, entry_point=entry_point,"
        " instruction='')\n        return s['response'], self.llm.cost_manager.total_cost\n"
    )
    found = await run(made, code)
    assert found.answer == "def double(x):\n    return 2 * x"
    assert (found.calls, found.operators, found.error) == (1, ("custom_code_generate",), None)


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("no arguments", "async def __call__(self):\n        return problem[:10]", "def double"),
        (
            "free names",
            "async def __call__(self, problem):\n        return entry_point + test_cases[0]",
            "doubleassert double(2) == 4",
        ),
        (
            "other argument names",
            "async def __call__(self, problem, test_cases, **kw):\n        return test_cases[1]",
            "assert double(0) == 0",
        ),
        ("a plain method", "def __call__(self, problem):\n        return 'plain'", "plain"),
        (
            "an AFlow constructor",
            "def __init__(self, name, llm_config, dataset):\n"
            "        self.llm = create_llm_instance(llm_config)\n"
            "        self.llm.cost_manager = CostManager()\n"
            "        self.mine = operator.Custom(self.llm)\n"
            "    async def __call__(self, problem, entry_point):\n"
            "        return (await self.mine(input='a', instruction='b'))['response'], 0",
            "said",
        ),
        (
            "gather",
            "async def __call__(self, problem):\n"
            "        a, b = await asyncio.gather(self.custom('1', 'x'), self.custom('2', 'x'))\n"
            "        return a['response'] + b.response",
            "saidsaid",
        ),
        (
            "results as text",
            "async def __call__(self, problem):\n"
            "        r = await self.custom(input='1', instruction='x', context='extra')\n"
            "        return 'ok ' + r if 'said' in r and r.strip() else 'no'",
            "ok said",
        ),
        (
            "a dictionary",
            "async def __call__(self, problem):\n        return {'solution': 'text'}",
            "text",
        ),
        (
            "prompt constants, read and assigned",
            "async def __call__(self, problem):\n"
            "        prompt_custom.STEP += '!'\n        return prompt_custom.STEP",
            "one!",
        ),
        (
            "a new prompt constant",
            "async def __call__(self, problem):\n"
            "        prompt_custom.NEW = prompt_custom.STEP + ' more'\n"
            "        return (await self.custom(problem, prompt_custom.NEW))['response']",
            "said",
        ),
        (
            "AFlow's cost manager",
            "def __init__(self, name, llm_config, dataset):\n"
            "        self.llm = create(llm_config)\n"
            "        self.llm.cost_manager = CostManager()\n"
            "    async def __call__(self, problem, entry_point):\n"
            "        cost = self.llm.get_usage_summary()['total_cost']\n"
            "        return f'{cost + self.llm.cost_manager.total_cost}', cost",
            "0.0",
        ),
        (
            "AFlow's imports",
            "async def __call__(self, problem):\n"
            "        from typing import List, Optional\n"
            "        import workspace.MBPP.workflows.round_1.prompt as mine\n"
            "        from workspace.MBPP.workflows.round_1.prompt import STEP\n"
            "        from . import prompt as own\n"
            "        from ..template import operator as ops\n"
            "        from scripts.logs import logger\n"
            "        logger.info('not shown')\n"
            "        made = await ops.CustomCodeGenerate(self.llm)(problem, entry_point, '')\n"
            "        return made['response'] + mine.STEP + STEP + own.STEP",
            "saidoneoneone",
        ),
        (
            "ScoreFlow's class",
            "def __init__(self, config, problem):\n"
            "        self.problem = problem\n"
            "        self.custom_code_generate = operator.CustomCodeGenerate(config, problem)\n"
            "    async def run_workflow(self):\n"
            "        made = await self.custom_code_generate(instruction='Be plain.')\n"
            "        return made + self.problem[:3]",
            "saiddef",
        ),
        (
            "ScoreFlow's class with its wrapper",
            "def __init__(self, config, problem):\n        self.problem = problem\n"
            "    async def run_workflow(self):\n        return 'inner'\n"
            "    async def __call__(self):\n"
            "        return await asyncio.wait_for(self.run_workflow(), timeout=5)",
            "inner",
        ),
        (
            "a duplicate inside its own method",
            "async def __call__(self, problem, test_cases):\n"
            "        async def __call__(self, problem, test_cases):\n"
            "            return (await self.custom(problem, 'x'))['response']\n"
            "        return await __call__(self, problem, test_cases)",
            "said",
        ),
        (
            "results handed on",
            "async def __call__(self, problem):\n"
            "        one = await self.custom('1', 'x')\n"
            "        two = await self.custom(input=one, instruction=[one], context={'text': one})\n"
            "        return two",
            "said",
        ),
        (
            "solutions of a dictionary's values",
            "async def __call__(self, problem):\n"
            "        a = await self.custom('1', 'x')\n"
            "        made = {1: a, 2: {'response': 'said'}}\n"
            "        return await self.sc_ensemble(made.values(), problem)",
            "said",
        ),
        (
            "a caught operator error",
            "async def __call__(self, problem):\n"
            "        try:\n            await self.custom()\n"
            "        except ValueError as error:\n            return 'caught ' + str(error)",
            "caught custom: custom needs an input or an instruction",
        ),
    ],
)
async def test_the_contract_takes_what_meta_agents_write(desk, name, body, expected):
    code = f"from workspace.x import operator as op\nclass Workflow:\n    {body}\n"
    found = await run(desk("said", "said"), code, "STEP = 'one'")
    assert found.error is None
    assert found.answer == expected


@pytest.mark.parametrize(
    ("code", "error_class", "says"),
    [
        (HEAD + "        return 5", "run:TypeError", "returned int; return the solution's text"),
        (HEAD + "        return ['a', 'b']", "run:TypeError", "returned list"),
        (HEAD + "        return {'n': 5}", "run:TypeError", "returned dict"),
        (HEAD + "        return ()", "run:ValueError", "returned None"),
        (HEAD + "        return None, 0.1", "run:ValueError", "returned None"),
        (HEAD + "        return self.custom('a', 'b')", "run:TypeError", "await it"),
        (HEAD + "        return self.custom('a', 'b'), 0", "run:TypeError", "await it"),
        (
            HEAD + "        made = self.custom('a', 'b')\n        return made['response']",
            "run:TypeError",
            "(line 4)",
        ),
        (HEAD + "        operator.Programmer(self.llm)", "run:AttributeError", "CustomCodeGen"),
        (
            HEAD + "        async def __call__(self):\n            return 'never called'",
            "run:ValueError",
            "returned None",
        ),
        (
            "class Workflow:\n    async def __call__(self, problem, plan):\n        return 'x'",
            "run:TypeError",
            "'plan'",
        ),
        (
            "class Workflow:\n    def __init__(self, config, problem):\n        1 / 0\n"
            "    async def run_workflow(self):\n        return 'x'",
            "load:ZeroDivisionError",
            "(line 3)",
        ),
        ("class Workflow:\n  def __call__(self:\n", "load:SyntaxError", "(line 2)"),
        ("x = 1", "load:NameError", "no class Workflow"),
        ("import not_there", "load:ModuleNotFoundError", "(line 1)"),
        ("class Workflow: pass", "load:NameError", "no method __call__"),
        (HEAD + "        return None", "run:ValueError", "returned None"),
        (HEAD + "        return undefined", "run:NameError", "(line 3)"),
        (HEAD + "        return prompt_custom.MISSING", "run:AttributeError", "MISSING"),
        (HEAD + "        await self.no_such_operator()", "run:AttributeError", "no_such"),
        (HEAD + "        await self.review(1, 2, 3, 4)", "run:TypeError", "takes 2"),
        (HEAD + "        raise SystemExit", "run:SystemExit", "run"),
        (HEAD + "        import os\n        os._exit(3)", "run:exit", "exit status 3"),
        (HEAD + "        x = []\n        while True: x.append(bytearray(10**6))", "run:", ""),
    ],
)
async def test_errors_come_back_as_one_line_of_data(desk, code, error_class, says):
    found = await run(desk(), code)
    assert found.answer is None
    assert found.error_class is not None
    assert found.error_class.startswith(error_class)
    assert says in (found.error or "")
    assert "\n" not in (found.error or "")


async def test_a_broken_prompt_file_is_named(desk):
    found = await run(desk(), HEAD + "        return 'x'", "STEP = '''open")
    assert found.error_class == "load:SyntaxError"


async def test_model_calls_are_limited(desk, sandbox):
    made = desk(*["no"] * 40)
    made.ctx.workflow_limits = WorkflowLimits(calls=5)
    found = await run(made, HEAD + "        while True: await self.custom('a', 'b')")
    assert (found.error_class, found.calls) == ("limit:CallLimit", 5)
    assert len(made.models["worker"].requests) == 5


async def test_its_own_time_is_limited_and_model_time_is_not(desk):
    made = desk()
    made.ctx.workflow_limits = WorkflowLimits(own_s=1.0)
    found = await run(made, HEAD + "        await asyncio.sleep(600)")
    assert found.error_class == "limit:TimeLimit"
    found = await run(made, HEAD + "        while True: pass")
    assert found.error_class == "limit:TimeLimit"


async def test_a_providers_failure_is_not_the_workflows(desk, monkeypatch):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.001)
    made = desk(*[ModelUnavailable("down")] * 5)
    with pytest.raises(ModelUnavailable):
        await run(made, HEAD + "        return await self.custom('a', 'b')")


async def test_a_workflow_sees_no_key_no_home_and_no_network(desk, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code = HEAD + (
        "        import os, socket\n"
        "        found = [k for k, v in os.environ.items() if 'canary' in v]\n"
        "        try:\n            socket.create_connection(('127.0.0.1', PORT), timeout=1)\n"
        "            found.append('connected')\n"
        "        except OSError as error:\n            found.append(type(error).__name__)\n"
        f"        found.append(os.path.exists({os.path.abspath(__file__)!r}))\n"
        "        return str(found)"
    )
    async with server:
        found = await run(desk(), code.replace("PORT", str(port)))
    assert found.answer in ("['ConnectionRefusedError', False]", "['OSError', False]")


@pytest.mark.parametrize(
    ("reply", "use", "expected"),
    [
        ("please strip and split this", "r.strip()[:6]", "please"),
        ("please strip and split this", "r.split()[0]", "please"),
        ("abc", "r[:2]", "ab"),
        ("abc", "r[0]", "a"),
        ("abc", "'-'.join([str(r), r['response']])", "abc-abc"),
        ("abc", "str(hasattr(r, 'no_such_thing'))", "False"),
        ("abc", "r['solution'] + r.response + r.get('response')", "abcabcabc"),
        ("abc", "f'{r}' + f'{r:>5}' + '%s' % r", "abc  abcabc"),
        (
            "abc",
            "str(len(r)) + str([c for c in r]) + str(r == 'abc') + str('abc' != r)",
            "3['a', 'b', 'c']TrueFalse",
        ),
        ('{"a": [1]}', "str(__import__('json').loads(r)['a'])", "[1]"),
        (
            "all 3 passed",
            "__import__('re').search('[0-9]+', r).group() + '-'.join([r, r])",
            "3all 3 passed-all 3 passed",
        ),
        (
            "abc",
            "str((isinstance(r, dict), isinstance(r, str), bool(r), {r: 1}['abc']))",
            "(True, True, True, 1)",
        ),
        ("abc", "str(dict(r)) + str({**r}) + str(list(r.items()))", DICTIONARIES),
        ("abc", "str(__import__('copy').deepcopy(r)['response']) + r['response'][1:]", "abcbc"),
        ("abc", "r.get('code', '') + r.get('missing', 'd') + str(r.get('verdict'))", "abcdNone"),
        ("", "str((bool(r), r == '', r['response'] == ''))", "(False, True, True)"),
        ("abc", "(r.update(response='xyz'), r)[1]['response'] + str(r)", "xyzxyz"),
        ("abc", "str(['a'] + [r]) + str(r + 1) + (1 and 'x' + r)", "['a', 'abc']abc1xabc"),
    ],
)
async def test_a_result_is_used_as_text_whatever_the_text_says(desk, reply, use, expected):
    code = HEAD + f"        r = await self.custom(input='a', instruction='b')\n        return {use}"
    found = await run(desk(reply), code)
    assert (found.answer, found.error) == (expected, None)


@pytest.mark.parametrize(
    "frame",
    [
        'b"Q", b"xyz"',
        'b"Q", b"{}"',
        'b"Q", b"[" * 100000',
        'b"Q", b\'{"id": 1e999, "operator": "custom",'
        ' "arguments": {"positional": [], "keywords": {}}}\'',
        'b"Z", b"{}"',
        'b"F", b"[]"',
    ],
)
async def test_a_forged_frame_is_the_workflows_error_and_no_crash(desk, frame):
    code = (
        HEAD + "        import sys, struct, os\n"
        f"        kind, body = {frame}\n"
        "        os.write(int(sys.argv[1]), struct.pack('>IB', len(body), kind[0]) + body)\n"
        "        await asyncio.sleep(30)\n"
    )
    found = await run(desk(), code)
    assert found.error_class == "run:BadFrame"


@pytest.mark.parametrize("stage", ["limit", "load", "x" * 1000, None])
async def test_what_a_workflow_tells_of_its_error_is_one_short_line(desk, stage):
    told = {"stage": stage, "class": "E" * 1000, "message": "a\r\u2028b\n" * 9999, "line": 10**999}
    code = HEAD + (
        "        import sys, struct, os\n"
        f"        body = {json.dumps(told).encode()!r}\n"
        "        os.write(int(sys.argv[1]), struct.pack('>IB', len(body), ord('E')) + body)\n"
        "        await asyncio.sleep(30)\n"
    )
    found = await run(desk(), code)
    kept = "load" if stage == "load" else "run"
    assert found.error_class == f"{kept}:{'E' * 80}"
    assert found.error == f"{kept}: {'E' * 80}: {'a b ' * 125}"


@pytest.mark.parametrize(
    "call",
    [
        "return await self.test(problem=problem, solution='x = 1\\n' * 400_000)",
        "return await self.sc_ensemble([chr(233) * 10_000_000], problem)",
        "return 'x' * (2 << 20)",
    ],
)
async def test_a_message_that_nobody_could_read_in_time_ends_the_workflow(desk, call):
    made = desk()
    found = await run(made, HEAD + f"        {call}")
    assert (found.error_class, found.calls) == ("limit:TooLong", 0)
    assert made.records("feedback") == []


async def test_a_result_that_fits_into_no_frame_is_the_workflows_limit(desk):
    async def big(ctx, **rest):
        return {"response": chr(233) * (11 << 20)}  # six bytes each

    made = desk()
    code = HEAD + "        return await self.big()"
    found = await made.ctx.run_workflow(code, "", operators={"big": big})
    assert found.error_class == "limit:TooLong"
    assert found.error == "limit: TooLong: big: its result is too long"


async def test_a_result_that_nests_too_deeply_is_an_exception_inside_the_workflow(desk):
    async def deep(ctx, **rest):
        nested = []
        for _ in range(5000):
            nested = [nested]
        return {"response": "x", "nested": nested}

    code = HEAD + "        return await self.deep()"
    found = await desk().ctx.run_workflow(code, "", operators={"deep": deep})
    assert found.error_class == "run:RecursionError"


async def test_the_names_of_what_a_workflow_calls_are_cut(desk):
    code = HEAD + (
        "        import sys, struct, os, json\n"
        "        call = {'positional': [], 'keywords': {}}\n"
        "        body = json.dumps({'id': 0, 'operator': 'o' * 9000, 'arguments': call}).encode()\n"
        "        os.write(int(sys.argv[1]), struct.pack('>IB', len(body), ord('Q')) + body)\n"
        "        await asyncio.sleep(30)\n"
    )
    made = desk()
    made.ctx.workflow_limits = WorkflowLimits(own_s=1.0)
    found = await run(made, code)
    assert found.operators == ("o" * 80,)


@pytest.mark.parametrize(
    "call",
    [
        "self.test(problem, 'def double(x): return x', entry_point, test_loop=float('inf'))",
        "self.test(problem, 'x', entry_point, test_loop='many')",
        "self.custom('a', 'b', temperature=float('nan'))",
        "self.custom('a', 'b', temperature=[1])",
        "self.sc_ensemble(5, problem)",
    ],
)
async def test_senseless_arguments_are_an_exception_inside_the_workflow(desk, call):
    made = desk()
    code = HEAD + f"        try:\n            await {call}\n"
    code += "        except Exception as error:\n            return 'caught ' + str(error)\n"
    found = await run(made, code)
    assert (found.answer or "").startswith("caught ")
    assert made.models["worker"].requests == []


async def test_operator_calls_that_ask_no_model_are_limited_too(desk):
    made = desk()
    made.ctx.workflow_limits = WorkflowLimits(operator_calls=5)
    code = HEAD + (
        "        n = 0\n        while True:\n            n += 1\n"
        "            await self.test(problem, f'def double(x): return {n}', entry_point,"
        " test_loop=0)\n"
    )
    found = await run(made, code)
    assert found.error_class == "limit:CallLimit"
    assert len(made.records("feedback")) == 5


async def test_a_workflow_that_waits_for_ever_on_its_operators_is_ended(desk):
    made = desk()
    made.ctx.workflow_limits = WorkflowLimits(total_s=1.0)

    async def hang(messages, sampling, **rest):
        await asyncio.sleep(600)

    made.models["worker"].complete = hang
    found = await run(made, HEAD + "        return await self.custom('a', 'b')")
    assert found.error_class == "limit:TimeLimit"
    assert [r["error_kind"] for r in made.records("call")] == ["cancelled"]


async def test_calls_left_in_flight_by_a_workflow_are_in_the_ledger(desk):
    made = desk("slow", "slow")

    async def hang(messages, sampling, **rest):
        await asyncio.sleep(600)

    made.models["worker"].complete = hang
    made.ctx.gates["worker"].answered = True
    code = HEAD + (
        "        tasks = [asyncio.ensure_future(self.custom('a', str(i))) for i in range(2)]\n"
        "        await asyncio.sleep(0.5)\n        return 'done'"
    )
    found = await run(made, code)
    assert found.answer == "done"
    assert [r["error_kind"] for r in made.records("call")] == ["cancelled"] * 2


async def test_test_cases_are_given_only_where_the_level_allows_it(desk):
    code = HEAD + "        return str(len(test_cases))"
    assert (await run(desk(level=Level.L2), code)).answer == "0"


async def test_the_test_operator_repairs_until_the_feedback_tests_pass(desk):
    made = desk(WRONG, RIGHT)
    code = HEAD + (
        f"        t = await self.test(problem, {WRONG!r}, entry_point)\n"
        "        return str(t['result']) + t['solution']"
    )
    found = await run(made, code)
    assert found.answer == "Truedef double(x):\n    return 2 * x"
    assert found.calls == 2
    assert "assert double(2) == 4: wrong got 2" in made.asked()[0]


async def test_the_test_operator_says_when_there_is_no_test(desk):
    code = HEAD + "        return str((await self.test(problem, 'x', entry_point))['result'])"
    assert (await run(desk(level=Level.L0), code)).answer == "None"


async def test_the_ensemble_falls_back_to_the_first_when_no_letter_is_named(desk):
    code = HEAD + f"        r = await self.sc_ensemble([{RIGHT!r}, {WRONG!r}], problem)\n"
    code += "        return r['response']"
    made = desk("I cannot choose", "...\nCHOICE: B")
    assert "2 * x" in ((await run(made, code)).answer or "")
    assert "return x" in ((await run(made, code)).answer or "")


def test_every_label_is_found_again_whatever_stands_around_it():
    labels = [label_of(i) for i in range(60)]
    assert labels[:2] + labels[25:28] == ["A", "B", "Z", "AA", "AB"]
    assert len(set(labels)) == 60
    for number, label in enumerate(labels):
        assert parse_choice(f"Choice: **{label.lower()}**.", labels) == number
        assert parse_choice(f"They agree.\nCHOICE: solution {label}", labels) == number
        assert parse_choice(f"<solution_letter>{label}</solution_letter>", labels) == number
        assert parse_choice(f'{{"thought": "", "solution_letter": "{label}"}}', labels) == number
        assert parse_choice(f"so I take\n({label})", labels) == number


@pytest.mark.parametrize(
    ("reply", "position"),
    [
        ("CHOICE: A\nno, wait\nCHOICE: C", 2),  # the last counts
        ("<think>CHOICE: A</think>CHOICE: B", 1),  # and reasoning does not
        ("CHOICE: B\nI am sure.", 1),
        ("CHOICE: letter", None),
        ("CHOICE: D", None),  # there are three
        ("CHOICE: none of them", None),
        ("A and B look alike", None),
        ("", None),
    ],
)
def test_a_choice_is_read_strictly_but_forgivingly(reply, position):
    assert parse_choice(reply, ["A", "B", "C"]) == position


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"feedback": "none", "verdict": "correct"}', True),
        ("<verdict>incorrect</verdict>", False),
        ("**Verdict**: Correct", True),
        ("End with VERDICT: correct, or VERDICT: incorrect", None),  # an echo of the request
        ("VERDICT: not sure", None),
    ],
)
def test_a_verdict_is_read_in_json_and_xml_too(reply, verdict):
    assert parse_review(reply)[0] is verdict


@pytest.mark.parametrize(
    ("form", "reply", "fields"),
    [
        ("json", 'Here:\n```json\n{"plan": "a", "n": 2}\n```\nDone.', {"plan": "a", "n": 2}),
        ("json", '<think>{"plan": 1}</think> It is {"plan": "b"}.', {"plan": "b"}),
        ("JSON", '{"text": "two\nlines"}', {"text": "two\nlines"}),
        ("json", "[1, 2]", {}),
        ("json", '{"plan": ', {}),
        ("json", "{" * 100_000, {}),
        ("xml", "<plan>old</plan> no: <plan>\nnew\n</plan><n>2</n>", {"plan": "new", "n": "2"}),
        ("xml", "<open> is never closed, </closed> never opened", {}),
        ("text", '{"plan": "a"}', {}),
        (None, '{"plan": "a"}', {}),
    ],
)
def test_fields_are_read_out_of_untidy_replies(form, reply, fields):
    assert parse_fields(reply, form) == fields


@pytest.fixture
def nodes(tmp_path, grader):
    """A desk with two models that a workflow's nodes may ask for, and one that they may not."""

    def make(worker=(), strong=(), **options):
        replies = {"worker": list(worker), "strong": list(strong), "meta": []}
        return Desk(tmp_path / "run", grader, replies, **options)

    return make


@pytest.mark.parametrize("name", ["strong", "scripted/strong", "STRONG ", "Scripted/Strong"])
async def test_a_node_chooses_its_model_by_role_or_name(nodes, name):
    made = nodes(["from the worker"], ["from the strong one"])
    code = HEAD + (
        f"        a = await self.custom('a', 'b', model={name!r})\n"
        "        b = await self.custom('a', 'b', model='worker')\n"
        "        return a + ', ' + b\n"
    )
    assert (await run(made, code)).answer == "from the strong one, from the worker"
    assert [r["role"] for r in made.records("call")] == ["strong", "worker"]


@pytest.mark.parametrize("name", ["meta", "scripted/meta", "gpt-9", "scripted", "../strong"])
async def test_a_model_off_the_list_is_refused_and_the_list_is_named(nodes, name):
    made = nodes()
    found = await run(made, HEAD + f"        return await self.custom('a', 'b', model={name!r})")
    assert found.error_class == "run:ValueError"
    assert "allowed: worker (scripted/worker), strong (scripted/strong) (line 3)" in found.error
    assert not any(model.requests for model in made.models.values())
    assert "strong (scripted/strong)" in node_options(made.ctx.nodes)


async def test_every_operator_that_asks_a_model_takes_a_node_s_settings(nodes):
    judged = "FEEDBACK: it returns x\nVERDICT: incorrect"
    made = nodes(strong=["plan", WRONG, judged, RIGHT, RIGHT, "CHOICE: B", RIGHT])
    node = "model='strong', temperature=0.5, output_format='as short as you can'"
    code = HEAD + (
        f"        plan = await self.custom(problem, 'Plan it.', {node})\n"
        f"        s = await self.custom_code_generate(problem, entry_point, plan, {node})\n"
        f"        f = await self.review(problem, s, {node})\n"
        f"        t = await self.revise(problem, s, f, {node})\n"
        f"        u = await self.test(problem, s, entry_point, {node})\n"
        f"        b = await self.sc_ensemble([s, t], problem, {node})\n"
        f"        return await self.format(problem, b, {node})\n"
    )
    found = await run(made, code)
    assert found.answer == "def double(x):\n    return 2 * x"
    assert (found.calls, found.sampled) == (7, True)
    assert {r["temperature"] for r in made.models["strong"].requests} == {0.5}
    assert all("Form of the answer: as short as you can." in t for t in made.asked("strong"))
    records = made.records("call")
    assert [r["operator"] for r in records] == list(found.operators)
    assert {r["output_format"] for r in records} == {"as short as you can"}
    assert {r["temperature"] for r in records} == {0.5}
    assert NODE.get() == {}  # and nothing of it is left behind


async def test_a_plain_call_is_in_the_ledger_with_its_operator(desk):
    made = desk("said", RIGHT)
    await run(made, HEAD + "        return await self.custom('a', 'b')")
    await made.ctx.ask("no workflow's call")
    first, second = made.records("call")
    assert (first["operator"], first["output_format"]) == ("custom", None)
    assert "operator" not in second


async def test_output_formats_are_asked_for_and_read(desk):
    made = desk('{"response": "mine", "steps": ["a", "b"]}', f"Sure:\n{RIGHT}", "<best>b</best>")
    code = HEAD + (
        "        a = await self.custom('x', 'y', output_format='json')\n"
        "        b = await self.custom('x', 'y', output_format='code')\n"
        "        c = await self.custom('x', 'y', output_format='xml')\n"
        "        return a['steps'][1] + c['best'] + a.response[:4] + b\n"
    )
    assert (await run(made, code)).answer == 'bb{"redef double(x):\n    return 2 * x'
    assert [text.splitlines()[-1] for text in made.asked()] == [
        "Form of the answer: one JSON object.",
        "Form of the answer: one Python code block.",
        "Form of the answer: XML, each part in a tag of its own.",
    ]


async def test_a_dictionary_as_input_reaches_the_model_whole(desk):
    made = desk("said")
    code = (
        HEAD + "        return await self.custom({'solution': 'abc', 'tests': ['t é']}, 'Judge.')"
    )
    await run(made, code)
    assert made.asked() == ['Judge.\n\n{\n "solution": "abc",\n "tests": [\n  "t é"\n ]\n}']


async def test_the_context_of_a_node_reaches_the_model(desk):
    made = desk("said", RIGHT)
    code = HEAD + (
        "        await self.custom('the input', 'the order', context='what went before')\n"
        "        return await self.custom_code_generate(problem=problem, context='a plan', x=1)\n"
    )
    assert (await run(made, code)).error is None
    first, second = made.asked()
    assert first == "the order\n\nthe input\n\nwhat went before"
    assert second.startswith("a plan\n\nSolve this problem in Python.")
    assert second.endswith(DOUBLE.prompt)


@pytest.mark.parametrize(
    "call", ["output_format='x' * 301", "temperature=2.5", "temperature='hot'"]
)
async def test_senseless_settings_of_a_node_ask_nobody(desk, call):
    made = desk()
    found = await run(made, HEAD + f"        return await self.custom('a', 'b', {call})")
    assert found.error_class == "run:ValueError"
    assert made.models["worker"].requests == []


@pytest.mark.parametrize(
    ("node", "worker", "sampled"),
    [("", 0.0, False), (", temperature=0.3", 0.0, True), ("", 1, True)],
)
async def test_a_run_with_a_sampled_call_is_one_of_several(desk, node, worker, sampled):
    made = desk("said", sampling={"worker": Sampling(temperature=worker)})
    found = await run(made, HEAD + f"        return await self.custom('a', 'b'{node})")
    assert found.sampled is sampled


async def test_tokens_are_limited_and_those_in_flight_are_let_finish(desk):
    made = desk(*["two words"] * 40)
    made.ctx.workflow_limits = WorkflowLimits(tokens=20)
    code = HEAD + (
        "        await asyncio.gather(*(self.custom('a', 'b') for _ in range(3)))\n"
        "        while True:\n            await self.custom('a', 'b')\n"
    )
    found = await run(made, code)  # 2 words asked, 2 answered: 4 a call
    assert (found.error_class, found.calls) == ("limit:TokenLimit", 5)
    assert "its 20 tokens are used up" in (found.error or "")
    assert [r["error"] for r in made.records("call")] == [None] * 5


async def test_tokens_that_a_provider_does_not_report_leave_the_limit_of_calls(desk):
    made = desk()
    made.ctx.workflow_limits = WorkflowLimits(calls=4, tokens=1)

    async def untold(messages, sampling, **rest):
        return Completion("said", None, None)

    made.models["worker"].complete = untold
    found = await run(made, HEAD + "        while True: await self.custom('a', 'b')")
    assert (found.error_class, found.calls) == ("limit:CallLimit", 4)


async def test_its_memory_is_limited(desk):
    made = desk()
    made.ctx.workflow_limits = WorkflowLimits(memory_mb=128)
    found = await run(made, HEAD + "        return 'x' * (200 << 20)")
    assert found.error_class == "run:MemoryError"
    assert "(line 3)" in (found.error or "")


@pytest.mark.parametrize("rewrites", ["loops=1", "test_loop=1", "1"])
async def test_the_number_of_rewrites_is_taken_as_aflow_or_we_spell_it(desk, rewrites):
    made = desk(WRONG, RIGHT)
    code = HEAD + (
        f"        t = await self.test(problem, {WRONG!r}, entry_point, {rewrites})\n"
        "        return str(t['result']) + str(len(t['feedback'].splitlines()))\n"
    )
    found = await run(made, code)
    assert (found.answer, found.calls) == ("False1", 1)


@pytest.mark.parametrize("level", [Level.L2, Level.ORACLE])
async def test_the_test_operator_tells_counts_where_the_level_hides_the_tests(desk, level):
    made = desk("no program", level=level)
    code = HEAD + (
        f"        t = await self.test(problem, {WRONG!r}, entry_point, loops=1)\n"
        "        return t['feedback']\n"
    )
    assert (await run(made, code)).answer == "1 of 2 tests pass"
    assert "assert double(2)" not in made.asked()[0]
    assert "1 of 2 tests pass" in made.asked()[0]


async def test_tests_of_the_workflow_s_own_are_not_run(desk):
    made = desk()
    code = HEAD + (
        f"        t = await self.test(problem=problem, solution={RIGHT!r},"
        " entry_point=entry_point, test_cases=['assert double(1) == 7'])\n"
        "        return str(t['result'])\n"
    )
    assert (await run(made, code)).answer == "True"


@pytest.mark.parametrize(
    ("call", "replies", "failure"),
    [
        ("custom_code_generate(problem)", ["I cannot."], "no program in the reply"),
        ("sc_ensemble([WRONG, RIGHT], problem)", ["Neither."], "no letter in the reply"),
        ("review(problem, RIGHT)", ["Hm.", "Hm."], "no verdict in the reply: accepted"),
        ("revise(problem, RIGHT, 'none')", ["I will not."], "nothing was rewritten"),
        ("format(problem, RIGHT)", ["Nothing."], "no program in the reply"),
    ],
)
async def test_a_failed_step_says_so_and_the_workflow_goes_on(desk, call, replies, failure):
    made = desk(*replies)
    code = f"RIGHT, WRONG = {RIGHT!r}, {WRONG!r}\n" + HEAD
    code += f"        made = await self.{call}\n        return made['failure'] + made['response']\n"
    found = await run(made, code)
    assert (found.answer or "").startswith(failure)
    assert found.calls == len(replies)


async def test_a_step_that_went_well_names_no_failure(desk):
    code = HEAD + "        r = await self.custom_code_generate(problem)\n"
    found = await run(desk(RIGHT), code + "        return str('failure' in r)")
    assert found.answer == "False"


async def test_the_ensemble_takes_any_number_of_solutions(desk):
    made = desk("CHOICE: AD")
    code = HEAD + (
        "        made = [f'def double(x):\\n    return {n}' for n in range(40)] + ['', None]\n"
        "        return await self.sc_ensemble(solutions=made, problem=problem)\n"
    )
    assert (await run(made, code)).answer == "def double(x):\n    return 29"
    assert "\nAN:\n" in made.asked()[0]


async def test_equal_solutions_need_no_choice(desk):
    made = desk()
    code = HEAD + "        return await self.sc_ensemble([problem] * 3, problem)"
    assert (await run(made, code)).calls == 0


async def test_a_rejected_request_is_an_exception_that_a_workflow_may_catch(desk):
    made = desk(RequestRejected("too long"), "said")
    code = HEAD + (
        "        try:\n            await self.custom('a', 'b')\n"
        "        except RuntimeError as error:\n"
        "            return str(error) + (await self.custom('c', 'd'))\n"
    )
    found = await run(made, code)
    assert (found.answer, found.calls) == ("custom: too longsaid", 2)


async def test_an_error_class_that_takes_more_than_a_message_still_reaches_the_workflow(desk):
    async def custom(ctx, **rest):
        return {"response": b"\xff".decode()}

    code = HEAD + "        return await self.custom()"
    found = await desk().ctx.run_workflow(code, "", operators={"custom": custom})
    assert found.error_class == "run:RuntimeError"
    assert "can't decode byte" in (found.error or "")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("operator.Review(self.llm)('a', 'b')", "no operator Review; there are Test"),
        ("self.review('a', 'b')", "no attribute 'review'"),
        ("self.llm('a')", "custom: no such operator; there are test"),
    ],
)
async def test_an_operator_that_is_not_offered_is_named(desk, call, says):
    only = {"test": OPERATORS["test"]}
    found = await desk().ctx.run_workflow(HEAD + f"        await {call}", "", operators=only)
    assert found.error_class == "run:AttributeError"
    assert says in (found.error or "")


async def test_an_operator_that_takes_any_keyword_gets_them(desk):
    async def echo(ctx, first, *, second=0, **rest):
        return {"response": f"{first}{second}{sorted(rest)}"}

    code = HEAD + "        return await self.echo(1, second=2, other=3, ctx=4)"
    found = await desk().ctx.run_workflow(code, "", operators={"echo": echo})
    assert found.answer == "12['other']"


async def test_prompt_constants_are_as_written_in_every_execution(desk):
    code = HEAD + "        prompt_custom.STEP += '!'\n        return prompt_custom.STEP"
    made = desk()
    answers = [(await run(made, code, "STEP = 'one'")).answer for _ in range(2)]
    assert answers == ["one!", "one!"]
