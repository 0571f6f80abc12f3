"""What the judge knows of a unittest module before any program runs, and its decoys.

Trusted: made from the tests' source alone. See `unittests.py`.
"""

import ast
import builtins
import secrets

import guard


class Plan:
    """What the tests' source says: trusted, for it is read before any program runs."""

    def __init__(self, work):
        self.source, self.entry_point = work["tests"], work["entry_point"]
        self.tree = ast.parse(self.source)
        self.nodes = list(ast.walk(self.tree))
        self.bound = set(self._bound())
        texts = [
            n.value for n in self.nodes if isinstance(n, ast.Constant) and type(n.value) is str
        ]
        self.texts = texts
        self.paths, self.modules = self._imports()
        roots = {path.partition(".")[0] for path in self.paths.values()}
        called = {n.attr for n in self.nodes if isinstance(n, ast.Attribute)}
        here = {"fail"} | {n for n, lib in OF_LIBRARY.items() if lib in roots}
        self.assertions = called & (KNOWN.keys() | here)

    def _bound(self):
        """Names that the tests give a meaning of their own anywhere."""
        for node in self.nodes:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                yield node.id
            elif isinstance(node, ast.arg):
                yield node.arg
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.alias):
                yield (node.asname or node.name).partition(".")[0]
            elif isinstance(node, ast.ExceptHandler) and node.name:
                yield node.name
            elif isinstance(node, (ast.Global, ast.Nonlocal)):
                yield from node.names

    def _imports(self):
        """{name in the tests: dotted path}, and the modules that they import anywhere."""
        paths, modules = {}, []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    paths[alias.asname or whole] = whole
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    paths[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in self.nodes:
            if isinstance(node, ast.Import):
                modules += [(alias.name, ()) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.append((node.module, tuple(alias.name for alias in node.names)))
        return paths, modules

    def watched(self):
        """What the child needs before the solution is loaded; nothing of the tests' own."""
        imported = self.paths
        paths = {path for path in imported.values() if "." in path}
        attributes = set()
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
                path = dotted(node)
                if path and path[0] in imported:
                    paths.add(".".join([imported[path[0]], *path[1:]]))
        plain = (int, float, str)
        constants = [n.value for n in self.nodes if isinstance(n, ast.Constant)]
        return {
            "modules": [m for m in self.modules if m[0].partition(".")[0] != "unittest"],
            "paths": sorted(paths),
            "attributes": sorted(attributes),
            "literals": sorted({v for v in constants if type(v) in plain}, key=repr)[:200],
        }

    def order(self, methods):
        """The tests with names in them that are made up now, for the child to define."""
        known = {name for name in dir(builtins) if callable(getattr(builtins, name))}
        known -= self.bound | guard.FREE | {"__build_class__", "super", "locals", "globals", "vars"}
        known -= {
            t.rpartition(".")[2] for t in self.texts if t.startswith(("builtins.", "__builtin"))
        }
        aliases = {name: f"_{secrets.token_hex(6)}" for name in known}
        entry = f"_{secrets.token_hex(6)}"
        if self.entry_point not in self.bound:
            aliases[self.entry_point] = entry
        skipped = {
            id(inner) for n in self.nodes if isinstance(n, ast.JoinedStr) for inner in ast.walk(n)
        }
        lines = [line.encode() for line in self.source.splitlines(keepends=True)]
        found = []
        in_text = False
        for node in self.nodes:
            if isinstance(node, ast.Name) and node.id in aliases:
                if id(node) in skipped:
                    in_text |= node.id == self.entry_point
                else:
                    found.append((node.lineno, node.col_offset, node.id))
        for line, column, name in sorted(found, reverse=True):
            text, new = lines[line - 1], aliases[name].encode()
            end = column + len(name.encode())
            lines[line - 1] = text[:column] + new + text[end:]
        used = {name for _, _, name in found}
        rebind = self.entry_point in self.bound or in_text
        return {
            "source": b"".join(lines).decode(),
            "names": {aliases[n]: n for n in used if n != self.entry_point},
            "entry": entry,
            "entry_point": self.entry_point,
            "rebind": self.entry_point if rebind and not self._defines_entry() else "",
            "methods": methods,
            "globals": sorted({n.id for n in self.nodes if isinstance(n, ast.Name)} | self.bound),
        }

    def _defines_entry(self):
        named = [n.name for n in self.tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        return self.entry_point in named


def dotted(node):
    """["np", "linalg", "norm"] of such an expression; None of any other."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else None


# assertion: (arguments with which it holds, arguments with which it fails)
KNOWN = {
    "assertEqual": ("{a}, {a}", "{a}, {b}"),
    "assertNotEqual": ("{a}, {b}", "{a}, {a}"),
    "assertTrue": ("{a} < {b}", "{a} > {b}"),
    "assertFalse": ("{a} > {b}", "{a} < {b}"),
    "assertIs": ("None, None", "None, {a}"),
    "assertIsNone": ("None", "{a}"),
    "assertIsNotNone": ("{a}", "None"),
    "assertIn": ("{a}, [{a}]", "{a}, [{b}]"),
    "assertNotIn": ("{a}, [{b}]", "{a}, [{a}]"),
    "assertIsInstance": ("{a}, int", "{a}, str"),
    "assertNotIsInstance": ("{a}, str", "{a}, int"),
    "assertAlmostEqual": ("{a}.0, {a}", "{a}.0, {b}"),
    "assertGreater": ("{b}, {a}", "{a}, {b}"),
    "assertGreaterEqual": ("{b}, {a}", "{a}, {b}"),
    "assertLess": ("{a}, {b}", "{b}, {a}"),
    "assertLessEqual": ("{a}, {b}", "{b}, {a}"),
    "assertListEqual": ("[{a}], [{a}]", "[{a}], [{b}]"),
    "assertTupleEqual": ("({a},), ({a},)", "({a},), ({b},)"),
    "assertDictEqual": ("{{1: {a}}}, {{1: {a}}}", "{{1: {a}}}, {{1: {b}}}"),
    "assertSetEqual": ("{{{a}}}, {{{a}}}", "{{{a}}}, {{{b}}}"),
    "assertCountEqual": ("[{a}, {b}], [{b}, {a}]", "[{a}, {a}], [{b}, {a}]"),
    "assertMultiLineEqual": ("'{a}', '{a}'", "'{a}', '{b}'"),
    "assertRegex": ("'{a}', '{a}'", "'{a}', '{b}'"),
    "assertRaises": ("ValueError, int, 'a{a}'", "ValueError, int, '{a}'"),
}
OUTRIGHT = {  # assertions by statement: (holds, fails)
    "fail": ("self.id()", "self.fail('{a}')"),
    "assert_frame_equal": (
        "pandas.testing.assert_frame_equal(*[pandas.DataFrame([{a}])] * 2)",
        "pandas.testing.assert_frame_equal(pandas.DataFrame([{a}]), pandas.DataFrame([{b}]))",
    ),
    "assert_series_equal": (
        "pandas.testing.assert_series_equal(*[pandas.Series([{a}])] * 2)",
        "pandas.testing.assert_series_equal(pandas.Series([{a}]), pandas.Series([{b}]))",
    ),
    "assert_array_equal": (
        "numpy.testing.assert_array_equal([{a}], [{a}])",
        "numpy.testing.assert_array_equal([{a}], [{b}])",
    ),
    "assert_array_almost_equal": (
        "numpy.testing.assert_array_almost_equal([{a}], [{a}])",
        "numpy.testing.assert_array_almost_equal([{a}], [{b}])",
    ),
    "allclose": (
        "self.assertTrue(numpy.allclose([{a}], [{a}]))",
        "self.assertTrue(numpy.allclose([{a}], [{b}]))",
    ),
    "array_equal": (
        "self.assertTrue(numpy.array_equal([{a}], [{a}]))",
        "self.assertTrue(numpy.array_equal([{a}], [{b}]))",
    ),
}


OF_LIBRARY = {
    "assert_frame_equal": "pandas",
    "assert_series_equal": "pandas",
    "assert_array_equal": "numpy",
    "assert_array_almost_equal": "numpy",
    "allclose": "numpy",
    "array_equal": "numpy",
}


def decoy(assertions, dice):
    """(source of a class with one test, whether it passes)."""
    known = sorted(assertions) or ["assertEqual", "assertTrue"]
    name, holds = dice.choice(known), dice.random() < 0.3  # most of them must fail
    first = dice.randrange(100, 10**6)
    values = {"a": first, "b": first + dice.randrange(1, 10**6)}
    if name in OUTRIGHT:
        line = OUTRIGHT[name][not holds].format(**values)
    else:
        line = f"self.{name}({KNOWN[name][not holds].format(**values)})"
    word = dice.choice(("case", "value", "input", "result", "empty", "type", "basic", "single"))
    label = f"{word}_{dice.randrange(1, 10**4)}"
    kind = f"Test{dice.randrange(10**6)}"
    return f"class {kind}(unittest.TestCase):\n def test_{label}(self):\n  {line}\n", holds
