"""The pages of the board, one file each.

Every module named in VIEWS has `TITLE` (its name in the navigation), `PATH` (its address; "" is the
first page), and `page(results)`, which draws it.
"""

from __future__ import annotations

VIEWS = ("board", "cost", "compare", "problems", "trajectory", "searches", "paper", "runs")
