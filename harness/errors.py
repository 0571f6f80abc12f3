"""One error class per boundary, so that a row says whose fault it was.

A wrong solution is data (`Verdict`), never an exception. Messages say which object, what was
expected, what was found and what to do; they never hold a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.types import Limits


class HarnessError(Exception):
    """Base of every error that the harness raises on purpose; `exit_code` is the CLI's."""

    exit_code = 1


class UsageError(HarnessError):
    """The command or call is wrong: unknown name, bad value, missing key. Nothing was run."""

    exit_code = 2


class BenchmarkError(HarnessError):
    """A benchmark file is absent, or its bytes are not the pinned ones."""


class SandboxError(HarnessError):
    """The sandbox itself broke: the verdict is `invalid`, never a failed solution."""


class StoreError(HarnessError):
    """Results cannot be written or read: no disk, a locked or damaged or newer database."""


class ModelError(HarnessError):
    """A model call failed. `kind` is a short word for the ledger and the error table."""

    kind = "model"


class ModelRefused(ModelError):
    """401, 403, 404: the key or the model's name is wrong. Permanent: it ends the run."""

    exit_code = 4
    kind = "refused"


class RequestRejected(ModelError):
    """400 and the like (context overflow): this request can never succeed; others may."""

    kind = "rejected"


class ModelUnavailable(ModelError):
    """5xx, time-outs, cut connections: worth another attempt after `retry_after_s`."""

    kind = "unavailable"

    def __init__(
        self, message: str, retry_after_s: float | None = None, limits: Limits | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limits = limits  # what the server's headers told beside the refusal


class RateLimited(ModelUnavailable):
    """429: too much at once. Nothing is wrong with the request; all wait, then it is sent again."""

    kind = "rate_limited"


class BudgetReached(HarnessError):
    """The run's budget is spent; the same command with a larger one resumes."""

    exit_code = 3


class WorkflowError(HarnessError):
    """A model-written workflow did not load, run or answer; it is feedback for the meta-agent.

    `stage` is load, run, limit or answer; `error_class` names what was raised inside.
    """

    def __init__(self, stage: str, error_class: str, message: str, line: int | None = None) -> None:
        where = f" (line {line})" if line else ""
        super().__init__(f"{stage}: {error_class}: {message}{where}")
        self.stage, self.error_class, self.detail, self.line = stage, error_class, message, line
