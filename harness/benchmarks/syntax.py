"""Syntax trees of benchmark code, which often has escapes that newer Pythons warn about."""

from __future__ import annotations

import ast
import warnings


def parse(source: str) -> ast.Module:
    """`ast.parse` without warnings. Raises SyntaxError or ValueError as that does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return ast.parse(source)
