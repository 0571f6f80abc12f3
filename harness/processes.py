"""What a program that the harness starts gets of its environment: all but the secrets.

Configuration is read from the environment by the command line alone. Here it is only handed on:
git, pip, uv, Streamlit and model servers need PATH, proxies and settings of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

_VENDORS = ("OPENAI_", "ANTHROPIC_")  # keys, headers, accounts, addresses
_INSTALLERS = ("PIP_", "UV_")  # an index may want a password; they are what asks it
_SECRET = re.compile(r"(?:KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)


def without_secrets(
    environment: Mapping[str, str], *, keep: Collection[str] = ()
) -> dict[str, str]:
    """The variables that hold no key, token or password by their names, and those to `keep`."""

    def harmless(name: str) -> bool:
        if name in keep or name.startswith(_INSTALLERS):
            return True
        return not name.startswith(_VENDORS) and _SECRET.search(name) is None

    return {name: value for name, value in environment.items() if harmless(name)}


def child_environment(*, keep: Collection[str] = ()) -> dict[str, str]:
    """This process's own environment, without its secrets: `env=` of every program it starts."""
    return without_secrets(os.environ, keep=keep)
