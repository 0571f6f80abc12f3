"""A model server that misbehaves on purpose: OpenAI Chat Completions and Anthropic Messages.

    python tests/fault_server.py --latency 0.2 --status-rate 500=0.1,429=0.05 --first-only

Prints one JSON line, `{"url": "http://127.0.0.1:PORT"}`, then serves until it is ended.
`start(latency=0.2, ...)` does that in a process of its own. The path decides the protocol: POST
`.../chat/completions` or `.../messages`; beside them GET `.../models`, GET `/stats`, POST `/reset`.

Every fault is decided by the seed, the bytes of the request's body and how often that body got as
far (an attempt turned away by a rate limit does not count): never by time or order. A request runs
through: --refuse (401), --reject-matching (400), --rpm and --tpm (429), --slots (waits), --hang,
--status-rate, --cut, the reply. Answers of the first three come at once, the others after the
latency. Tokens are a stand-in: a quarter of the body's bytes and of the reply's characters.

Standard library only, and little of it per request, so that a benchmark measures its client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import math
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROSE = "I would rather not write this program today."  # holds no program: nothing is graded
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}
REASONS |= {411: "Length Required", 429: "Too Many Requests", 500: "Internal Server Error"}
MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
KEY = re.compile(rb"\r\n(?:authorization:\s*bearer|x-api-key:)\s*([^\r\n]*)", re.IGNORECASE)


class Allowance:
    """A rate limit: a bucket refilled evenly, or all of it back when a fixed window ends."""

    def __init__(self, per_minute: float, size: float | None, window_s: float | None) -> None:
        self.window_s = window_s
        self.rate = per_minute / 60  # a second; of a window only on average
        self.size = per_minute * window_s / 60 if window_s else size or per_minute
        self.left = self.size
        self.at: float | None = None  # the last look, or the window's begin; None before the first

    def look(self, now: float) -> None:
        """Bring `left` up to the time `now`, in seconds of any clock."""
        if self.at is None:
            self.at = now
        elif self.window_s is None:
            self.left = min(self.size, self.left + (now - self.at) * self.rate)
            self.at = now
        elif now - self.at >= self.window_s:
            self.at += (now - self.at) // self.window_s * self.window_s
            self.left = self.size

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0.0: now."""
        if self.left >= min(amount, self.size):
            return 0.0
        if self.window_s is None:
            return (min(amount, self.size) - self.left) / self.rate
        return self.reset_s(now)

    def reset_s(self, now: float) -> float:
        """Seconds until all of it is back."""
        if self.window_s is None:
            return (self.size - self.left) / self.rate
        return self.window_s - (now - (self.at if self.at is not None else now))


@dataclass
class Seen:
    """What the server knows of one body."""

    requests: int = 0
    admitted: int = 0  # past the refusals and the rate limits
    answered: int = 0  # with 200


@dataclass
class Counts:
    """What GET /stats tells, of all requests since the start or the last POST /reset."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)  # "hang" and "cut" beside numbers
    bodies: dict[bytes, Seen] = field(default_factory=dict)
    in_flight: int = 0
    peak_in_flight: int = 0
    abandoned: int = 0  # the client went away before its answer
    first_at: float | None = None  # Unix seconds
    last_at: float | None = None
    answered_at: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """`span_s` is from the first request to the last answer; `attempts` is {how often a body
        came: how many bodies}; `paid_twice` counts answers with 200 beyond a body's first."""
        span = None
        if self.first_at is not None and self.answered_at is not None:
            span = self.answered_at - self.first_at
        return {
            "requests": self.requests,
            "unique": len(self.bodies),
            "statuses": dict(sorted(self.statuses.items())),
            "attempts": dict(Counter(str(seen.requests) for seen in self.bodies.values())),
            "answered": sum(seen.answered > 0 for seen in self.bodies.values()),
            "paid_twice": sum(max(0, seen.answered - 1) for seen in self.bodies.values()),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "abandoned": self.abandoned,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "span_s": span,
        }


class FaultServer:
    """All connections together: the options, the rate limits, the counts."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.seed = str(options.seed).encode()
        self.rejected = (
            re.compile(options.reject_matching.encode()) if options.reject_matching else None
        )
        self.canned = _canned(options.canned) if options.canned else []
        self.replies: dict[str, tuple[bytes, int]] = {}  # text -> as JSON, tokens
        self.busy = 0  # slots in use
        self.line = deque[Connection]()  # who waits for one
        self.reset()

    def reset(self) -> None:
        """Forget all requests, and fill the rate limits. Requests in flight are not counted."""
        options = self.options
        self.counts = Counts()
        self.requests_allowed = (
            Allowance(options.rpm, options.burst, options.window) if options.rpm else None
        )
        self.tokens_allowed = Allowance(options.tpm, None, options.window) if options.tpm else None

    def chance(self, what: bytes, body: bytes, attempt: int) -> float:
        """A number in [0, 1) that only seed, purpose, body and attempt decide."""
        mixed = hashlib.blake2b(body + what + b"%d" % attempt, digest_size=8, key=self.seed)
        return int.from_bytes(mixed.digest()) / 2**64

    def reply(self, body: bytes) -> tuple[bytes, int]:
        """The answer's text as JSON, and its tokens."""
        text = next((reply for match, reply in self.canned if match in body), self.options.reply)
        found = self.replies.get(text)
        if found is None:
            found = self.replies[text] = json.dumps(text).encode(), max(1, len(text) // 4)
        return found

    def limit(self, tokens: int, *, anthropic: bool) -> tuple[bytes, float]:
        """Take one request from the rate limits: headers to send, seconds to wait (0.0: passes)."""
        if self.requests_allowed is None and self.tokens_allowed is None:
            return b"", 0.0
        now = self.loop.time()
        both = [(self.requests_allowed, 1.0, "requests"), (self.tokens_allowed, tokens, "tokens")]
        limits = [(allowed, amount, name) for allowed, amount, name in both if allowed]
        for allowed, _, _ in limits:
            allowed.look(now)
        wait_s = max(allowed.wait_s(amount, now) for allowed, amount, _ in limits)
        lines = []
        for allowed, amount, name in limits:
            if wait_s == 0:
                allowed.left -= amount
            if self.options.headers:
                lines += _limit_headers(allowed, name, now, anthropic=anthropic)
        if wait_s and self.options.retry_after:
            lines.append(f"retry-after: {math.ceil(wait_s)}")
        return "".join(f"{line}\r\n" for line in lines).encode(), wait_s


def _limit_headers(allowed: Allowance, name: str, now: float, *, anthropic: bool) -> list[str]:
    limit, left = round(allowed.size), max(0, math.floor(allowed.left))
    reset_s = allowed.reset_s(now)
    if anthropic:
        stem = f"anthropic-ratelimit-{name}"
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(time.time() + reset_s)))
        return [f"{stem}-limit: {limit}", f"{stem}-remaining: {left}", f"{stem}-reset: {at}"]
    return [
        f"x-ratelimit-limit-{name}: {limit}",
        f"x-ratelimit-remaining-{name}: {left}",
        f"x-ratelimit-reset-{name}: {_go_duration(reset_s)}",
    ]


def _go_duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{text}s" if minutes else f"{text}s"


def _canned(path: Path) -> list[tuple[bytes, str]]:
    """(bytes of a body, reply) from JSON lines of `match` (ASCII text of a message) and `reply`."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [(json.dumps(row["match"])[1:-1].encode(), row["reply"]) for row in rows]


class Connection(asyncio.Protocol):
    """One client's connection: a request is answered before the next one is read."""

    def __init__(self, server: FaultServer) -> None:
        self.server = server
        self.buffer = b""
        self.waiting = False  # a request of it has been read and not answered
        self.working = False  # that request holds a slot
        self.counted: Counts | None = None  # where that request is counted as in flight
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        if self.counted:
            self.counted.abandoned += 1
            self.leave()

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if not self.waiting:
            self.read()

    def read(self) -> None:
        """Work on the next request, if all of it is there."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end]
        found = LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(self.buffer) < end + 4 + length:
            return
        body = self.buffer[end + 4 : end + 4 + length]
        self.buffer = self.buffer[end + 4 + length :]
        method, path, _ = head.split(b" ", 2)
        self.waiting = True
        if method == b"POST" and path.endswith((b"/chat/completions", b"/messages")):
            self.model_call(head, body, anthropic=path.endswith(b"/messages"))
        elif path == b"/stats":
            self.send(200, json.dumps(self.server.counts.as_dict()).encode())
        elif path == b"/reset":
            self.server.reset()
            self.send(200, b"{}")
        elif path.endswith(b"/models"):
            self.send(200, b'{"object":"list","data":[{"id":"fault","object":"model"}]}')
        else:
            self.send(404, _error("not_found_error", "no such route"))

    def model_call(self, head: bytes, body: bytes, *, anthropic: bool) -> None:
        server, counts, options = self.server, self.server.counts, self.server.options
        counts.requests += 1
        counts.last_at = time.time()
        if counts.first_at is None:
            counts.first_at = counts.last_at
        counts.in_flight += 1
        counts.peak_in_flight = max(counts.peak_in_flight, counts.in_flight)
        self.counted = counts
        digest = hashlib.blake2b(body, digest_size=16).digest()
        seen = counts.bodies.get(digest)
        if seen is None:
            seen = counts.bodies[digest] = Seen()
        seen.requests += 1
        if options.refuse:
            key = KEY.search(head)
            shown = key[1].decode("latin-1") if key else "none"
            message = f"Incorrect API key provided: {shown}"
            self.answer(401, _error("invalid_api_key", message))
            return
        if server.rejected is not None and server.rejected.search(body):
            message = "This model's maximum context length is 8192 tokens. Shorten the messages."
            self.answer(400, _error("context_length_exceeded", message))
            return
        text, tokens = server.reply(body)
        headers, wait_s = server.limit(len(body) // 4 + tokens, anthropic=anthropic)
        if wait_s:
            self.answer(429, _error("rate_limit_exceeded", "Rate limit reached"), headers)
            return
        seen.admitted += 1
        self.plan = self.fate(digest, seen.admitted)
        self.headers, self.seen = headers, seen
        named = MODEL.search(body)
        self.text = _reply(named[1] if named else b"none", text, len(body) // 4, tokens, anthropic)
        if options.slots and server.busy >= options.slots:
            server.line.append(self)
        else:
            self.work()

    def fate(self, digest: bytes, attempt: int) -> tuple[str, int, float]:
        """(reply, hang or cut; status; seconds until then)."""
        server, options = self.server, self.server.options
        latency_s: float = options.latency
        if (
            options.latency_tail
            and server.chance(b"tail", digest, attempt) < options.latency_tail[0]
        ):
            latency_s = options.latency_tail[1]
        first = attempt == 1 or not options.first_only
        if options.hang and first and server.chance(b"hang", digest, attempt) < options.hang:
            return "hang", 200, latency_s
        if options.status_rate and first:
            drawn = server.chance(b"status", digest, attempt)
            for status, share in options.status_rate:
                if drawn < share:
                    return "reply", status, latency_s
                drawn -= share
        if options.cut and first and server.chance(b"cut", digest, attempt) < options.cut:
            return "cut", 200, latency_s
        return "reply", 200, latency_s

    def work(self) -> None:
        """Begin on the request: it holds one of the slots until it is answered."""
        self.server.busy += 1
        self.working = True
        if self.plan[0] == "hang":
            self.server.counts.statuses["hang"] += 1
        else:
            self.timer = self.server.loop.call_later(self.plan[2], self.finish)

    def finish(self) -> None:
        self.timer = None
        what, status, _ = self.plan
        if what == "cut":
            assert self.counted is not None
            self.counted.statuses["cut"] += 1
            self.counted.answered_at = time.time()
            self.leave()
            self.transport.write(_response(200, self.text, self.headers)[: -len(self.text) // 2])
            self.transport.close()
        elif status == 200:
            self.seen.answered += 1
            self.answer(200, self.text, self.headers)
        else:
            wait = (
                b"retry-after: 1\r\n" if status == 429 and self.server.options.retry_after else b""
            )
            self.answer(status, _error("server_error", "made to fail"), self.headers + wait)

    def answer(self, status: int, body: bytes, headers: bytes = b"") -> None:
        """Answer a model call and count it."""
        assert self.counted is not None
        self.counted.statuses[str(status)] += 1
        self.counted.answered_at = time.time()
        self.leave()
        self.send(status, body, headers)

    def leave(self) -> None:
        """The request is no longer in flight; the next one in line gets its slot."""
        server = self.server
        assert self.counted is not None
        self.counted.in_flight -= 1
        self.counted = None
        if self in server.line:
            server.line.remove(self)
        if self.working:
            self.working = False
            server.busy -= 1
            if server.line:
                server.line.popleft().work()

    def send(self, status: int, body: bytes, headers: bytes = b"") -> None:
        if not self.transport.is_closing():
            self.transport.write(_response(status, body, headers))
        self.waiting = False
        if self.buffer:
            self.read()


def _response(status: int, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n%s" % (
        status,
        REASONS.get(status, "Fault").encode(),
        len(body),
        headers,
        body,
    )


def _error(code: str, message: str) -> bytes:
    """An error that both SDKs read."""
    error = {"message": message, "type": code, "code": code, "param": None}
    return json.dumps({"type": "error", "error": error}).encode()


_number = itertools.count(1)


def _reply(model: bytes, text: bytes, prompt: int, tokens: int, anthropic: bool) -> bytes:
    number = next(_number)
    if anthropic:
        return (
            b'{"id":"msg_%d","type":"message","role":"assistant","model":"%s",'
            b'"content":[{"type":"text","text":%s}],"stop_reason":"end_turn","stop_sequence":null,'
            b'"usage":{"input_tokens":%d,"output_tokens":%d}}'
            % (number, model, text, prompt, tokens)
        )
    return (
        b'{"id":"chatcmpl-%d","object":"chat.completion","created":1750000000,"model":"%s",'
        b'"choices":[{"index":0,"finish_reason":"stop","logprobs":null,'
        b'"message":{"role":"assistant","content":%s,"refusal":null}}],'
        b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'
        % (number, model, text, prompt, tokens, prompt + tokens)
    )


def _shares(text: str) -> list[tuple[int, float]]:
    """500=0.1,429=0.05"""
    pairs = [part.split("=") for part in text.split(",")]
    return [(int(status), float(share)) for status, share in pairs]


def _tail(text: str) -> tuple[float, float]:
    share, seconds = text.split(",")
    return float(share), float(seconds)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = options.add_argument
    add("--port", type=int, default=0, help="0: any free one")
    add("--seed", type=int, default=0, help="of every fault")
    add("--latency", type=float, default=0.0, metavar="S", help="seconds before a reply")
    add("--latency-tail", type=_tail, metavar="P,S", help="a share P takes S seconds instead")
    add("--slots", type=int, metavar="N", help="requests worked on at once; the others wait")
    add("--hang", type=float, default=0.0, metavar="P", help="share that is never answered")
    add("--cut", type=float, default=0.0, metavar="P", help="share cut off in mid-answer")
    add("--status-rate", type=_shares, metavar="500=P,429=P", help="shares that fail so")
    add("--first-only", action="store_true", help="those three only on a body's first attempt")
    add("--refuse", action="store_true", help="401 to all, with the key in the message")
    add("--reject-matching", metavar="REGEX", help="400 context_length_exceeded for such bodies")
    add("--rpm", type=float, metavar="N", help="requests a minute, a bucket of N")
    add("--tpm", type=float, metavar="N", help="tokens a minute, prompt and reply together")
    add("--burst", type=float, metavar="N", help="size of the bucket of --rpm")
    add("--window", type=float, metavar="S", help="fixed windows of S seconds, not buckets")
    add("--retry-after", action="store_true", help="send retry-after beside a 429")
    add("--headers", action="store_true", help="send what is left of the rate limits")
    add("--reply", default=PROSE, metavar="TEXT", help="what every reply says")
    add("--canned", type=Path, metavar="FILE", help="JSON lines: match, reply; else --reply")
    add("--start-dead", type=float, default=0.0, metavar="S", help="refuse connections so long")
    add("--with-parent", action="store_true", help="end when standard input does")
    return options


async def serve(options: argparse.Namespace) -> None:
    """Serve until cancelled, or until standard input ends under --with-parent."""
    server = FaultServer(options)
    loop = asyncio.get_running_loop()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))  # without listen(), connections are refused
    address = json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"})
    if options.start_dead:
        print(address, flush=True)
        await asyncio.sleep(options.start_dead)
    await loop.create_server(lambda: Connection(server), sock=listener, backlog=4096)
    if not options.start_dead:
        print(address, flush=True)
    if options.with_parent:
        await loop.run_in_executor(None, sys.stdin.read)
    else:
        await loop.create_future()


@dataclass(frozen=True)
class Server:
    """A fault server in a process of its own."""

    url: str  # the base URL for Anthropic's SDK; OpenAI's wants `openai_url`
    process: subprocess.Popen[str]

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stats(self) -> dict[str, Any]:
        """`Counts.as_dict` of the server now."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def reset(self) -> None:
        urllib.request.urlopen(f"{self.url}/reset", data=b"", timeout=10).close()


@contextlib.contextmanager
def start(**options: Any) -> Iterator[Server]:
    """A fault server with the command line's options as keywords, ended on the way out.

    `start(latency=0.2, status_rate={500: 0.1}, latency_tail=(0.01, 5), first_only=True)`
    """
    command = [sys.executable, "-I", "-S", __file__, "--with-parent"]
    for name, value in options.items():
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            command.append(f"{flag}={','.join(f'{key}={share}' for key, share in value.items())}")
        elif isinstance(value, tuple):
            command.append(f"{flag}={','.join(map(str, value))}")
        else:
            command.append(flag if value is True else f"{flag}={value}")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fault server did not start: {' '.join(command)}")
        yield Server(json.loads(line)["url"], process)
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser().parse_args()))
