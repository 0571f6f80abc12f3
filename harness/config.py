"""Settings from outside the command line: a `--config` file, HARNESS_<FLAG> variables, `.env`.

Files and mappings go in; what comes out is text as a command line would hold it, so that a value
is checked in one place wherever it stood. Precedence: flag, `--config`, variable, default.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import operator
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "HARNESS_"
ALIASES = {  # names that users of other harnesses know -> ours
    "model": "worker",
    "model-role": "role",
    "model-base-url": "base-url",
    "api-url": "base-url",
    "solver": "method",
    "S": "A",
    "dataset": "benchmark",
    "tasks": "benchmark",
    "sample-id": "problems",
    "task-id": "problems",
    "epochs": "n-samples",
}
_PLURALS = {"knobs": "knob", "roles": "role"}  # as tables of a file are called


def whole(value: Any) -> int:
    """A whole number, of text too. Raises TypeError or ValueError for anything else."""
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return operator.index(value)


def number(value: Any) -> float:
    """A number, of text too. Raises TypeError or ValueError for anything else."""
    if isinstance(value, bool):
        raise TypeError
    return float(value)


SETTINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool], str]] = {
    # of `types.Sampling`: name -> (conversion, from text too; check; what it is)
    "temperature": (number, lambda v: 0 <= v <= 2, "a number in 0 to 2"),
    "max_tokens": (whole, lambda v: 1 <= v < 2**31, "a whole number in 1 to 2^31 - 1"),
    "top_p": (number, lambda v: 0 < v <= 1, "a number above 0, at most 1"),
    "reasoning_effort": (str, lambda v: v.isalpha(), "a word like low, medium or high"),
    "extra_body": (
        lambda v: json.loads(v) if isinstance(v, str) else dict(v),
        lambda v: isinstance(v, dict),
        "a JSON object",
    ),
}

Value = str | bool | list[str]
Kind = Literal["switch", "one", "many"]  # on or off; one value; repeatable


@dataclass(frozen=True)
class Flag:
    """One setting of a command."""

    name: str  # of the command's parameter: "n_samples"
    names: tuple[str, ...]  # on the command line, without dashes in front: ("n-samples",)
    kind: Kind
    variable: bool = True  # whether HARNESS_<FLAG> sets it

    @property
    def shown(self) -> str:
        """Its longest name."""
        return max(self.names, key=len)


def from_file(path: Path, flags: Iterable[Flag]) -> dict[str, Value]:
    """What a TOML or YAML file sets, by the name of the parameter.

    Keys are flags with or without dashes in front, dashes or underscores inside; a repeatable flag
    takes a table or a list. Raises UsageError: unreadable file, unknown key, a value of no use.
    """
    by_name = {name: flag for flag in flags for name in flag.names}
    found: dict[str, Value] = {}
    for key, value in read_table(path).items():
        name = key.lstrip("-").replace("_", "-")
        ours = _PLURALS.get(name) or ALIASES.get(name, "")
        flag = by_name.get(name) or by_name.get(ours)
        if flag is None:
            raise UsageError(f"{path}: unknown key {key!r}: {advice(name, by_name)}")
        if flag.name in found:
            raise UsageError(f"{path}: {key!r} sets --{flag.shown} a second time: keep one")
        if value is not None:
            found[flag.name] = _value(flag, value, f"{path}: {key}")
    return found


def read_table(path: Path) -> dict[str, Any]:
    """The table in a .toml, .yaml or .yml file. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    if path.suffix == ".toml":
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: not TOML: {error}") from None
    if path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(found, dict | None):
            raise UsageError(f"{path}: wants flags and their values, not {_kind(found)}")
        return {str(key): value for key, value in (found or {}).items()}
    raise UsageError(f"{path}: its name ends in .toml, .yaml or .yml, whichever it is")


def from_environment(environment: Mapping[str, str], flags: Iterable[Flag]) -> dict[str, Value]:
    """What HARNESS_<FLAG> variables set, by the name of the parameter; an empty one is not set.

    A repeatable flag's is split as a shell would: `HARNESS_KNOB="rounds=3 evals=2"`.
    """
    found: dict[str, Value] = {}
    for flag in flags:
        name = variable(flag)
        text = environment.get(name, "") if flag.variable else ""
        if text and flag.kind == "many":
            try:
                found[flag.name] = shlex.split(text)
            except ValueError as error:
                raise UsageError(f"{name}: cannot be split: {error}") from None
        elif text:
            found[flag.name] = text
    return found


def variable(flag: Flag) -> str:
    """The environment variable of a flag: "HARNESS_N_SAMPLES"."""
    return PREFIX + flag.shown.upper().replace("-", "_")


def with_dotenv(
    environment: Mapping[str, str], folder: Path, names: Iterable[str]
) -> dict[str, str]:
    """Those variables of `names` that are set, in the environment or else in the folder's `.env`.

    Nothing else is taken from the file, and nothing of it enters the process's environment.
    """
    path = folder / ".env"
    kept: Mapping[str, str | None] = {}
    if path.is_file():
        from dotenv import dotenv_values

        try:
            kept = dotenv_values(path, interpolate=False)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UsageError(f"{path}: cannot be read: {reason}") from None
    values = {name: environment.get(name) or kept.get(name) for name in names}
    return {name: value for name, value in values.items() if value}


def pairs(given: Iterable[str], flag: str) -> dict[str, str]:
    """name=value texts as a dictionary; the last one of a name holds. Raises UsageError."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} wants name=value, not {text!r}")
        found[name] = value
    return found


def sampling(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """ROLE.SETTING=VALUE texts as {role: {setting: value}}. Raises UsageError."""
    found: dict[str, dict[str, Any]] = {}
    for key, text in pairs(given, "--sampling").items():
        role, dot, setting = key.partition(".")
        if not dot or not role:
            raise UsageError(f"--sampling wants role.setting=value, not {key}={text!r}")
        setting = setting.replace("-", "_")
        found.setdefault(role, {})[setting] = setting_of(setting, text, f"--sampling {key}")
    return found


def setting_of(name: str, value: Any, where: str) -> Any:
    """One sampling setting, converted from text where need be. Raises UsageError: `where`."""
    if name not in SETTINGS:
        raise UsageError(f"{where}: unknown setting {name!r}: {advice(name, SETTINGS)}")
    convert, fits, wanted = SETTINGS[name]
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        converted = convert(value)
        if fits(converted) and not isinstance(value, bool):
            return converted
    raise UsageError(f"{where} is {wanted}, not {value!r}")


def strangers(environment: Iterable[str], known: Iterable[str]) -> list[str]:
    """A line for each HARNESS_ variable that sets no flag of any command."""
    names = sorted(known)
    return [
        f"{name} sets no flag and is not read: {advice(name, names, all_of='`eval --help`')}"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in names
    ]


def advice(name: str, known: Iterable[str], *, all_of: str | None = None) -> str:
    """Which name was probably meant, or all there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    every = f"use one of {', '.join(names)}" if all_of is None else f"{all_of} names what is"
    return f"did you mean {close[0]!r}?" if close else every


def _value(flag: Flag, value: Any, where: str) -> Value:
    if flag.kind == "switch":
        if not isinstance(value, bool):
            raise UsageError(f"{where}: wants true or false, not {value!r}")
        return value
    if flag.kind == "many":
        if isinstance(value, dict):
            return list(_flat(value))
        return [_text(item) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, dict):
        raise UsageError(f"{where}: wants one value, not a table")
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    if isinstance(value, bool):  # YAML reads `cache: off` as false
        return "on" if value else "off"
    return _text(value)


def _flat(table: Mapping[Any, Any]) -> Iterable[str]:
    """{"rounds": 3} as rounds=3, {"meta": {"top_p": 1}} as meta.top_p=1."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from (f"{name}.{inner}={_text(item)}" for inner, item in value.items())
        else:
            yield f"{name}={_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}"


__all__ = [
    "ALIASES",
    "PREFIX",
    "SETTINGS",
    "Flag",
    "advice",
    "from_environment",
    "from_file",
    "number",
    "pairs",
    "read_table",
    "sampling",
    "setting_of",
    "strangers",
    "variable",
    "whole",
    "with_dotenv",
]
