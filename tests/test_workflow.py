"""Model-written workflows: what is accepted, what comes back as data, what they cannot reach."""

import asyncio
import os

import pytest

from baselines.operators import OPERATORS
from harness.errors import ModelUnavailable
from harness.types import Level, WorkflowLimits
from tests.support import RIGHT, WRONG

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
        ("abc", "f'{r}'", "abc"),
    ],
)
async def test_a_result_is_used_as_text_whatever_the_text_says(desk, reply, use, expected):
    code = HEAD + f"        r = await self.custom(input='a', instruction='b')\n        return {use}"
    found = await run(desk(reply), code)
    assert (found.answer, found.error) == (expected, None)


@pytest.mark.parametrize(
    "frame",
    ['b"Q", b"xyz"', 'b"Q", b"{}"', 'b"Q", b"[" * 100000', 'b"Z", b"{}"', 'b"F", b"[]"'],
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
