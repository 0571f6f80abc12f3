"""Workflows like those that FlowReasoner's paper prints (arXiv:2504.15257, figures 5 to 11).

None is a copy: each is written anew from the traits of its figure, uses the runtime as that does,
and has its defects. What runs, answers; what is broken Python, comes back as an error that a
meta-agent can read.
"""

import re

import pytest

from baselines.flowreasoner import solve
from baselines.operators import OPERATORS
from harness.types import Level
from tests.support import DOUBLE, RIGHT, WRONG, Desk

DOUBLED = "def double(x):\n    return 2 * x"
ASSERTS = "assert double(2) == 4"

# test cases go to the test operator, a prompt constant grows, no entry point for the generator, and
# the repaired program is read as if it were the text of an error
FIGURE_5A = """
class Workflow:
    async def __call__(self, problem: str, test_cases: list):
        answer = await self.custom_code_generate(
            problem=problem, instruction=prompt_custom.WRITE
        )
        checked = await self.test(
            problem=problem, solution=answer["response"], test_cases=test_cases
        )
        if not checked["result"]:
            error = checked["solution"]
            prompt_custom.WRITE += f"\\nAn earlier program failed with: {error}"
            answer = await self.custom_code_generate(
                problem=problem, instruction=prompt_custom.WRITE
            )
        return answer["response"], self.llm.cost_manager.total_cost
"""
WRITE = 'WRITE = """Write plain code."""'

# `entry_point` and `max_iterations` are nobody's; a model is asked what the tests would say
FIGURE_6 = """
class Workflow:
    async def __call__(self, problem: str, test_cases: list):
        plan = await self.custom(input=problem, instruction=prompt_custom.PLAN)
        answer = await self.custom_code_generate(
            problem=problem, entry_point=entry_point, instruction=plan["response"]
        )
        for attempt in range(max_iterations):
            verdict = await self.custom(
                input=f"Program: {answer['response']} Tests: {test_cases}",
                instruction=prompt_custom.CHECK,
            )
            if "failed" not in verdict["response"].lower():
                break
            answer = await self.custom_code_generate(
                problem=problem, entry_point=entry_point, instruction=verdict["response"]
            )
        return answer["response"], self.llm.cost_manager.total_cost
"""
PLAN = 'PLAN = "Plan it."\nCHECK = "Would these tests have failed?"'

# `entry_point` is nobody's; a model is asked, and its words are searched for the good news
FIGURE_7 = """
class Workflow:
    async def __call__(self, problem: str, test_cases: list):
        answer = await self.custom_code_generate(
            problem=problem, entry_point=entry_point, instruction=prompt_custom.WRITE
        )
        verdict = await self.custom(
            input=answer["response"] + str(test_cases), instruction=prompt_custom.CHECK
        )
        if "all passed" not in verdict["response"]:
            answer = await self.custom(
                input=answer["response"] + verdict["response"], instruction=prompt_custom.MEND
            )
        return answer["response"], self.llm.cost_manager.total_cost
"""
MEND = 'WRITE = "Write it."\nCHECK = "Say all passed, or what fails."\nMEND = "Mend the program."'

# drafts side by side, no entry point, the ensemble chooses
FIGURE_8 = """
class Workflow:
    async def __call__(self, problem: str, test_cases: list):
        drafts = await asyncio.gather(
            *[
                self.custom_code_generate(problem=problem, instruction=prompt_custom.WRITE)
                for _ in range(3)
            ]
        )
        best = await self.sc_ensemble(
            solutions=[draft["response"] for draft in drafts], problem=problem
        )
        return best["response"], self.llm.cost_manager.total_cost
"""

# a context for the generator, no entry point, a model asked about the tests
FIGURE_9 = """
class Workflow:
    async def __call__(self, problem: str, test_cases: list):
        notes = await self.custom(input=problem, instruction=prompt_custom.PLAN)
        answer = await self.custom_code_generate(
            problem=problem, instruction=prompt_custom.WRITE, context=notes["response"]
        )
        verdict = await self.custom(
            input={"solution": answer["response"], "tests": test_cases},
            instruction=prompt_custom.CHECK,
        )
        if "failed" in verdict["response"]:
            answer = await self.custom_code_generate(
                problem=problem, instruction=prompt_custom.WRITE, context=verdict["response"]
            )
        return answer["response"], self.llm.cost_manager.total_cost
"""

# `__call__` holds a second one of its own; `entry_point` is nobody's
FIGURE_10 = '''
class Workflow:
    async def __call__(self, problem: str, test_cases: list):
        """First the outer one."""
        async def __call__(self, problem: str, test_cases: list):
            answer = await self.custom_code_generate(
                problem=problem, entry_point=entry_point, instruction=""
            )
            return answer["response"], self.llm.cost_manager.total_cost
        answer = await self.custom_code_generate(
            problem=problem, entry_point=entry_point, instruction=prompt_custom.WRITE
        )
        checked = await self.test(
            problem=problem, solution=answer["response"], entry_point=entry_point
        )
        return checked["solution"], self.llm.cost_manager.total_cost
'''

# review and revision, a context for the generator, no entry point
FIGURE_11 = """
class Workflow:
    async def __call__(self, problem: str, test_cases: list):
        answer = await self.custom_code_generate(
            problem=problem, instruction=prompt_custom.WRITE, context=f"Tests: {test_cases}"
        )
        found = await self.review(problem=problem, solution=answer["response"])
        if not found["review_result"]:
            answer = await self.revise(
                problem=problem, solution=answer["response"], feedback=found["feedback"]
            )
        return answer["response"], self.llm.cost_manager.total_cost
"""


async def run(desk, code, prompts):
    return await desk.ctx.run_workflow(code, prompts, operators=OPERATORS)


async def test_figure_5a_takes_a_repaired_program_for_an_error(desk):
    made = desk(WRONG, WRONG, WRONG, WRONG, RIGHT)
    found = await run(made, FIGURE_5A, WRITE)
    assert (found.answer, found.error) == (DOUBLED, None)
    assert found.operators == ("custom_code_generate", "test", "custom_code_generate")
    assert found.calls == 5  # three rewrites inside the test
    assert made.asked()[-1].startswith(
        "Write plain code.\nAn earlier program failed with: def double(x):\n    return x"
    )


async def test_figure_5a_starts_from_its_own_prompt_in_each_execution(desk):
    replies = [WRONG, WRONG, WRONG, WRONG, WRONG]
    made = desk(*replies, *replies)
    for _ in range(2):
        assert (await run(made, FIGURE_5A, WRITE)).error is None
    first, second = made.asked()[0], made.asked()[5]
    assert first == second
    assert "An earlier program" not in second


async def test_figure_6_comes_back_as_a_name_error_with_its_line(desk):
    found = await run(desk("a plan", WRONG), FIGURE_6, PLAN)
    assert (found.answer, found.calls) == (None, 2)
    assert found.error_class == "run:NameError"
    line = FIGURE_6.splitlines().index("        for attempt in range(max_iterations):") + 1
    assert found.error == f"run: NameError: name 'max_iterations' is not defined (line {line})"


async def test_figure_6_s_error_is_what_the_meta_agent_sees_next(tmp_path, grader):
    reply = "<modification>{}</modification>\n<graph>{}</graph>\n<prompt>{}</prompt>"
    mended = FIGURE_6.replace("max_iterations", "2")
    meta = [reply.format("check it", FIGURE_6, PLAN), reply.format("mend it", mended, PLAN)]
    worker = [WRONG, "a plan", WRONG, "a plan", WRONG, "Two FAILED.", RIGHT, "None did."]
    made = Desk(tmp_path / "run", grader, {"worker": worker, "meta": meta})
    found = await solve(DOUBLE, made.ctx, rounds=2, parent="latest")
    assert found.code == DOUBLED
    assert "run: NameError: name 'max_iterations' is not defined (line 7)" in made.asked("meta")[1]
    assert [r["score"] for r in made.records("round")] == [0.5, 0.0, 1.0]


@pytest.mark.parametrize(
    ("verdict", "answer", "calls"),
    [("They have all passed.", "def double(x):\n    return x", 2), ("Two fail.", RIGHT, 3)],
)
async def test_figure_7_believes_what_a_model_says_of_the_tests(desk, verdict, answer, calls):
    made = desk(WRONG, verdict, RIGHT)
    found = await run(made, FIGURE_7, MEND)
    assert (found.answer, found.calls, found.error) == (answer, calls, None)
    assert "the complete function `double`" in made.asked()[0]
    assert ASSERTS in made.asked()[1]  # at this level the worker reads the tests


async def test_figure_8_gathers_drafts_and_lets_the_ensemble_choose(tmp_path, grader):
    def answer(messages):
        text = messages[-1]["content"]
        if listed := re.search(r"^([A-C]):\n```python\n.*\n    return 2", text, re.MULTILINE):
            return f"CHOICE: {listed.group(1)}"
        return RIGHT if len(made.models["worker"].requests) == 3 else WRONG

    made = Desk(tmp_path / "run", grader, {"worker": answer})
    found = await run(made, FIGURE_8, WRITE)
    assert (found.answer, found.calls, found.error) == (DOUBLED, 4, None)
    assert found.operators == ("custom_code_generate",) * 3 + ("sc_ensemble",)


@pytest.mark.parametrize(
    ("verdict", "calls"), [("The second test failed: got 2.", 4), ("Fine.", 3)]
)
async def test_figure_9_gives_the_generator_a_context(desk, verdict, calls):
    made = desk("mind zero", WRONG, verdict, RIGHT)
    found = await run(made, FIGURE_9, f"{PLAN}\n{WRITE}")
    assert (found.calls, found.error) == (calls, None)
    assert found.answer == (DOUBLED if calls == 4 else DOUBLED.replace("2 * ", ""))
    assert made.asked()[1].startswith("Write plain code.\n\nmind zero\n\nSolve this problem")
    assert ASSERTS in made.asked()[2]


async def test_figure_10_runs_the_outer_of_its_two_calls(desk):
    made = desk(WRONG, RIGHT)
    found = await run(made, FIGURE_10, WRITE)
    assert (found.answer, found.error) == (DOUBLED, None)
    assert found.operators == ("custom_code_generate", "test")
    assert made.asked()[0].startswith("Write plain code.")


async def test_figure_10_without_a_body_of_its_own_returns_nothing_and_is_told_so(desk):
    nothing = FIGURE_10.partition(
        "        answer = await self.custom_code_generate(\n            problem"
    )
    alone = nothing[0]
    assert alone.count("def __call__") == 2
    found = await run(desk(), alone, WRITE)
    assert found.error_class == "run:ValueError"
    assert "the workflow returned None" in (found.error or "")


@pytest.mark.parametrize(("verdict", "calls"), [("incorrect", 3), ("correct", 2)])
async def test_figure_11_reviews_and_revises(desk, verdict, calls):
    made = desk(WRONG, f"FEEDBACK: it does not double\nVERDICT: {verdict}", RIGHT)
    found = await run(made, FIGURE_11, WRITE)
    assert (found.calls, found.error) == (calls, None)
    assert found.answer == (DOUBLED if calls == 3 else DOUBLED.replace("2 * ", ""))
    assert ASSERTS in made.asked()[0]


@pytest.mark.parametrize("figure", [FIGURE_5A, FIGURE_7, FIGURE_9, FIGURE_11])
async def test_no_figure_shows_a_test_at_a_level_that_hides_them(desk, figure):
    replies = [WRONG, "VERDICT: correct", "all passed", WRONG, WRONG, WRONG]
    made = desk(*replies, level=Level.L2)
    found = await run(made, figure, f"{PLAN}\n{MEND}")
    assert found.error is None
    assert not any(ASSERTS in text for text in made.asked())
