"""What keeps a unittest verdict honest beside hostile code (`unittests.py`): used in the child.

`Slots` remember what names stand for and tell which have changed; `private_unittest` makes a
`TestCase` of our own; `Liars` finds results that claim to equal everything. All is built before the
solution is loaded.
"""

import builtins
import contextlib
import functools
import gc
import importlib.util
import itertools
import operator
import random
import sys
import types
import unittest
import unittest.case
import unittest.mock
import unittest.util

__builtins__ = dict(vars(builtins))  # ours: the functions below know no other

_FREE = "print input exit quit help copyright credits license breakpoint _"
FREE = frozenset(_FREE.split())  # built-ins that are anybody's to change
LOOKED_AT = 20_000  # parts of one value
_ABSENT = object()
_NAME = type.__dict__["__name__"].__get__
_DICT = type.__dict__["__dict__"].__get__
_MRO = type.__dict__["__mro__"].__get__
_FUNCTION = types.FunctionType
_SMALL = tuple(range(-5, 257))  # CPython keeps one object for each of them
_SMALL_SUM = "32881"  # as text, which holds no integer


def told(error, file_name=None, before=0):
    """Class, message and line of an exception, whatever its class does; one line of exact text.

    `before`: lines that stand before the solution in the file of this name.
    """
    try:
        message = str(error.msg if isinstance(error, SyntaxError) else error)
        message = str.__getitem__(message, slice(0, 300))
    except BaseException:  # noqa: BLE001 - a hostile __str__
        message = "<no message>"
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None and file_name:
        if trace.tb_frame.f_code.co_filename == file_name:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f" (line {line - before})" if line and line > before else ""
    return f"{_NAME(type(error))}: {message}{where}"


SIGN = "harness.sign"  # the audit event of a sign of tampering: what hears it cannot be reached
note = functools.partial(sys.audit, SIGN)
_sealed = []  # sets of names, once the tests are defined


def _noted(name):
    if any(name in names for names in _sealed):
        note(f"{name} of the tests")


class Sealed(type):
    """The class of our TestCase: setting an assertion is a sign, also when it is taken back."""

    def __setattr__(cls, name, value):
        _noted(name)
        super().__setattr__(name, value)


def seal(names):
    """From now on nothing has a reason to give the tests or their classes these attributes."""
    _sealed.append(frozenset(names))


def private_unittest():
    """(a package like `unittest` with a TestCase that nobody else holds, its module)."""
    spec = importlib.util.find_spec("unittest.case")
    case = importlib.util.module_from_spec(spec)

    def build(function, name, *bases, **keywords):
        if name == "TestCase":
            keywords["metaclass"] = Sealed
        return builtins.__build_class__(function, name, *bases, **keywords)

    case.__builtins__ = {**__builtins__, "__build_class__": build}
    spec.loader.exec_module(case)

    def setting(self, name, value):
        _noted(name)
        object.__setattr__(self, name, value)

    case.TestCase.__setattr__ = setting
    package = types.ModuleType("unittest")
    vars(package).update(vars(unittest))
    for name, value in vars(case).items():
        if name in vars(package) and not name.startswith("__"):
            setattr(package, name, value)
    return package, case


# what shows objects that nobody handed to the caller: frozen ones, ours, only in the first two
_HEAP = frozenset({"gc.get_objects", "gc.get_referrers"})
_SEARCHES = frozenset({"gc.get_referents", "sys._current_frames", "sys._current_exceptions"})
_WRITES = frozenset({"ctypes.cdata", "ctypes.PyObj_FromPtr"})  # an address made an object
_OF_FUNCTIONS = frozenset({"__code__", "__defaults__", "__kwdefaults__"})


def watch(found, file_name):
    """A list of signs of tampering, filled as they are seen; nothing can end this.

    `found`: lists of what `Slots.read` found, whose functions have to keep their code.
    `file_name`: of the solution, which has no business with frames above its own.
    """
    signs = []
    tests = set()  # code objects of the tests, which stand in the same file
    keep, of_type, frozen = signs.append, _FUNCTION, gc.get_freeze_count

    def refuse(sign):
        keep(sign)
        raise PermissionError(f"no program needs {sign}")

    def heard(event, arguments):
        if event == SIGN:
            keep(arguments[0])
        elif event == "object.__setattr__":
            changed = arguments[1] in _OF_FUNCTIONS and type(arguments[0]) is of_type
            if changed and any(arguments[0] is value for values in found for value in values):
                keep("the code of a function")
        elif event == "sys._getframe":
            try:
                raise LookupError
            except LookupError as error:
                caller = error.__traceback__.tb_frame.f_back
            code = caller.f_code if caller is not None else None
            if code is not None and code.co_filename == file_name and code not in tests:
                refuse("the frames of its callers")
        elif event in _SEARCHES or (event in _HEAP and not frozen()):
            refuse(f"what {event} shows")
        elif event in _WRITES:
            refuse("memory, by ctypes")
        elif event == "ctypes.dlsym":
            name = arguments[1]
            if type(name) is str and name.startswith(("Py", "_Py")):
                refuse("the interpreter, by ctypes")
        elif event == "open" and str(arguments[0]).rstrip("'").endswith("/mem"):
            refuse("memory, by a file")

    sys.addaudithook(heard)
    return signs, tests


class Slots:
    """Names in modules and classes, with what each stood for, down to a function's code."""

    def __init__(self):
        self.places = []  # (mapping, name, what to call it)

    def add(self, holder, names, prefix=""):
        mapping = vars(holder)
        prefix = prefix or getattr(holder, "__name__", "")
        self.places += [(mapping, name, f"{prefix}.{name}") for name in names]

    def add_functions(self, holder):
        """All functions, classes and their functions, of a module or class."""
        for name, value in list(vars(holder).items()):
            if isinstance(value, (_FUNCTION, classmethod, staticmethod, property)):
                self.add(holder, [name])
            elif isinstance(value, type) and value.__module__ == getattr(holder, "__name__", None):
                self.add(holder, [name])
                self.add_functions(value)

    def read(self):
        found = []
        keep = found.append
        for mapping, name, _ in self.places:
            value = mapping.get(name, _ABSENT)
            keep(value)
            kind = type(value)
            if kind is classmethod or kind is staticmethod:
                value = value.__func__
                kind = type(value)
            if kind is _FUNCTION:
                keep(value.__code__)
                keep(value.__defaults__)
                keep(value.__kwdefaults__)
                for cell in value.__closure__ or ():
                    keep(_content(cell))
        return found

    def changed(self, before, allow=()):
        """The name of a slot that is not what it was when `before` was read; None when all are.

        A value of a type of `allow` may stand anywhere.
        """
        now = self.read()
        if len(now) == len(before) and all(map(operator.is_, before, now)):
            return None
        slots = zip(self.places, _grouped(before), _grouped(now), strict=True)
        for (_, _, label), old, new in slots:
            same = len(old) == len(new) and all(map(operator.is_, old, new))
            if not same and not issubclass(type(new[0]), allow):
                return label
        return None


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return _ABSENT


def _grouped(found):
    """What `Slots.read` found, in one list for each slot."""
    found = iter(found)
    for value in found:
        function = value.__func__ if type(value) in (classmethod, staticmethod) else value
        cells = function.__closure__ or () if type(function) is _FUNCTION else ()
        rest = 3 + len(cells) if type(function) is _FUNCTION else 0
        yield [value, *itertools.islice(found, rest)]


def machinery(case):
    """Slots that nothing has a reason to change: unittest, ours and the public one, and mock."""
    slots = Slots()
    for module in (case, unittest.case, unittest.util, unittest.mock):
        slots.add_functions(module)
    own = case.__builtins__
    slots.places += [(own, name, f"{name} of the assertions") for name in own]
    return slots


def surroundings(work):
    """Slots that a test may patch, but no solution: built-ins and what the tests call by name.

    `work`: {"paths": dotted names that the tests use, "attributes": all attribute names in them}.
    """
    slots = Slots()
    slots.add(builtins, [n for n, v in vars(builtins).items() if callable(v) and n not in FREE])
    for path in work["paths"]:
        holder, _, name = path.rpartition(".")
        if path in HARMLESS:
            continue
        found = _holder(holder)
        if found is None:
            continue
        module, place = found
        slots.places.append((sys.modules, module, f"module {module}"))
        with contextlib.suppress(Exception):
            getattr(place, name)  # loads what a module loads at first use
        value = vars(place).get(name)
        # a module of a kind of its own replaces itself at first use; data are anybody's to change
        lazy = issubclass(type(value), types.ModuleType) and type(value) is not types.ModuleType
        callable_ = any("__call__" in vars(kind) for kind in _MRO(type(value)))
        if not lazy and (type(value) is types.ModuleType or callable_):
            slots.add(place, [name], holder)
    for path in DATA_CLASSES:
        module = sys.modules.get(path.rpartition(".")[0])
        kind = getattr(module, path.rpartition(".")[2], None)
        for base in _MRO(kind) if isinstance(kind, type) else ():
            names = [n for n in work["attributes"] if n in vars(base)]
            names += [n for n in ("__eq__", "__ne__", "__len__", "__bool__") if n in vars(base)]
            slots.add(base, names)
    roots = {path.partition(".")[0] for path in work["paths"]} | {"os"}
    roots |= {module.partition(".")[0] for module, _ in work["modules"]}
    for name, holds in INTERNALS.items():
        module = sys.modules.get(name)
        if module is not None and (not holds or holds in roots):
            slots.places.append((sys.modules, name, f"module {name}"))
            slots.add_functions(module)
            slots.add(module, [n for n, v in vars(module).items() if callable_data(v)])
            for kind in list(vars(module).values()):
                if isinstance(kind, type) and kind.__module__ == name:  # inherits them, or has none
                    slots.add(kind, _DECIDES - vars(kind).keys())
    return slots


_DECIDES = frozenset(
    [
        "equals",
        "__eq__",
        "__ne__",
        "__len__",
        "__bool__",
        "__iter__",
        "__getitem__",
        "__contains__",
        "__getattribute__",
        "_cmp_method",
        "__array_ufunc__",
        "__array_function__",
        "all",
        "any",
        "item",
    ]
)


def callable_data(value):
    """Whether a module's value does what a function does: a built-in, or a helper it keeps."""
    return type(value) is types.BuiltinFunctionType or type(value).__module__.startswith("json.")


# Replaced by many an honest program, and of no use to a forger: they return nothing.
HARMLESS = frozenset({"time.sleep", "matplotlib.pyplot.show", "warnings.warn", "webbrowser.open"})
# What the functions that tests call rest on: {module: looked at when the tests import this}
INTERNALS = {
    "os": "os",
    "posix": "os",
    "genericpath": "os",
    "posixpath": "os",
    "json": "json",
    "json.decoder": "json",
    "json.encoder": "json",
    "csv": "csv",
    "pandas.core.internals.base": "pandas",
    "pandas.core.internals.managers": "pandas",
    "pandas.core.internals.blocks": "pandas",
    "pandas.core.arraylike": "pandas",
    "pandas.core.base": "pandas",
    "pandas.core.frame": "pandas",
    "pandas.core.generic": "pandas",
    "pandas.core.indexes.base": "pandas",
    "pandas.core.ops.array_ops": "pandas",
    "pandas.core.ops.common": "pandas",
    "pandas.core.dtypes.missing": "pandas",
    "pandas.core.series": "pandas",
    "pandas._testing": "pandas",
    "pandas._testing.asserters": "pandas",
    "numpy.core.numeric": "numpy",
    "numpy.core.fromnumeric": "numpy",
    "numpy.core._methods": "numpy",
    "numpy.testing._private.utils": "numpy",
}


def _holder(path):
    """(name of the module, module or class itself) of a dotted path; None when not imported."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        place = sys.modules.get(name)
        if place is None:
            continue
        for part in parts[end:]:
            place = vars(place).get(part)
            if not issubclass(type(place), (type, types.ModuleType)):  # asks nothing of `place`
                return None
        return name, place
    return None


DATA_CLASSES = (
    "pandas.DataFrame",
    "pandas.Series",
    "pandas.Index",
    "matplotlib.axes.Axes",
    "matplotlib.figure.Figure",
    "pathlib.Path",
    "PIL.Image.Image",
    "collections.Counter",
    "datetime.datetime",
)


def integers_hold():
    """Whether small integers, which all code shares, are still what they were."""
    return str(sum(_SMALL)) == _SMALL_SUM and str(int(True) + int(False)) == "1"


# Results that lie

_COMPARING = """
__eq__ __ne__ __lt__ __gt__ __le__ __ge__ __contains__ __getattr__ __getattribute__ __getitem__
__sub__ __rsub__ __abs__ __round__ __array__ __array_ufunc__ __array_function__ equals __class__
"""
_COMPARES = _COMPARING.split()
_PLAIN = frozenset({int, float, str, bool, type(None), bytes, complex, range, slice, type})
_PLAIN |= {_FUNCTION, types.BuiltinFunctionType, types.ModuleType, types.MethodType}
_BUILT = frozenset({type(int.__eq__), type(list.append), type(object.__init_subclass__)})
_BUILT |= {types.MemberDescriptorType, types.GetSetDescriptorType, type(None)}
_BUILT |= {types.ClassMethodDescriptorType}
# what a subclass of a data type may define itself
_OWN_NAMES = """
__init__ __new__ __repr__ __str__ __doc__ __module__ __qualname__ __dict__ __weakref__ __hash__
__array_finalize__ __reduce__ __setstate__ __annotations__ __class_getitem__ __init_subclass__
__slots__ __orig_bases__ __parameters__ __firstlineno__ __static_attributes__ _metadata
_constructor _constructor_sliced _constructor_expanddim
"""
_OWN = frozenset(_OWN_NAMES.split())
_DATA_MODULES = ("numpy", "pandas")


class Liar(Exception):
    """A value claims to equal what it cannot; the text says which."""


class Liars:
    """Looks into values for objects that equal (hold, exceed, ...) whatever they are compared to.

    An object's own `__eq__` is no lie: it is asked about values that differ from each other, and
    only one that affirms several is found out.
    """

    def __init__(self, literals):
        self.random = random.SystemRandom()
        self.literals = literals  # of the tests
        self.mock = unittest.mock
        self.any = type(unittest.mock.ANY)
        library = unittest.__file__.rpartition("/unittest/")[0]
        sites = [path for path in sys.path if path.endswith("-packages")]
        self.trusted = (*(f"{path}/" for path in (library, *sites)), "<frozen", "<__array_f")
        self.busy = False

    def look(self, value):
        """Raises Liar."""
        kind = type(value)
        if kind in _PLAIN or self.busy:
            return
        self.busy = True  # what is asked here may call what is guarded
        try:
            self._walk(value)
        finally:
            self.busy = False

    def _walk(self, value):
        waiting, seen, left = [value], set(), LOOKED_AT
        while waiting and left:
            left -= 1
            value = waiting.pop()
            kind = type(value)
            if kind in _PLAIN or id(value) in seen:
                continue
            seen.add(id(value))
            if kind not in _BOXES:
                self._ask(value, kind)
            for base in _BOXES:
                if base in _MRO(kind):
                    if base is dict:
                        waiting += itertools.islice(dict.keys(value), left)
                        waiting += itertools.islice(dict.values(value), left)
                    else:
                        waiting += itertools.islice(base.__iter__(value), left)
                    break
            else:
                waiting += self._inside(value, kind, left)

    def _inside(self, value, kind, most):
        """Objects in an array, a frame or an object of the solution's own."""
        module = sys.modules.get("numpy")
        if module is not None and module.ndarray in _MRO(kind):
            return list(itertools.islice(value.flat, most)) if value.dtype.hasobject else []
        module = sys.modules.get("pandas")
        if module is not None and kind in (module.DataFrame, module.Series):
            frame = value.to_frame() if kind is module.Series else value
            parts = []
            for place, dtype in enumerate(list(frame.dtypes)):
                if getattr(dtype, "hasobject", False):
                    parts += list(frame.iloc[:, place].head(1000).to_numpy())
            return parts[:most]
        if _package(kind) == MODULE_OF_SOLUTION:
            fields = getattr(value, "__dict__", None)
            return list(fields.values())[:most] if type(fields) is dict else []
        return []

    def look_at_both(self, first, second):
        """Raises Liar when only the word of the solution's class makes it equal plain data."""
        for value, other in ((first, second), (second, first)):
            kind = type(value)
            if (
                kind in _PLAIN
                or type(other) not in _DATA
                or self.mock.NonCallableMock in _MRO(kind)
            ):
                continue
            if "__eq__" in self._own(kind):
                raise Liar(f"{_NAME(kind)} says itself that it equals a {_NAME(type(other))}")

    def _own(self, kind):
        """Comparing methods of a class that no installed library defines."""
        if self.mock.NonCallableMock in _MRO(kind):  # it has all of them, unless one was set
            equal = _DICT(kind).get("__eq__")
            unset = equal is None or type(equal) is self.mock.MagicProxy
            return set() if unset else {"__eq__"}
        found = set()
        for base in _MRO(kind):
            members = _DICT(base)
            for name in _COMPARES:
                if name in members and self._foreign(members[name]):
                    found.add(name)
        return found

    def _foreign(self, member):
        if isinstance(member, (classmethod, staticmethod)):
            member = member.__func__
        if isinstance(member, property):
            member = member.fget
        if type(member) is _FUNCTION:
            file_name = member.__code__.co_filename
            return not file_name.startswith(self.trusted)
        return type(member) not in _BUILT

    def _ask(self, value, kind):
        if kind is self.any:
            raise Liar("a result equals everything: mock.ANY")
        own = self._own(kind)
        if not own:
            return
        name = _NAME(kind)
        if own & _COUNTED and any(base in _DATA for base in _MRO(kind)):
            raise Liar(f"{name} redefines how a {_NAME(_base(kind))} is compared")
        above = []
        for base in _MRO(kind):
            if _package(base) in _DATA_MODULES:
                for part in above:
                    for changed in sorted(set(_DICT(part)) & set(dir(base)) - _OWN):
                        if self._foreign(_DICT(part)[changed]):
                            raise Liar(f"{name} redefines {changed} of {_NAME(base)}")
                break
            above.append(base)
        if "__class__" in own:
            raise Liar(f"{name} hides its class")
        if own & {"__eq__", "equals", "__getattribute__", "__getattr__"}:
            self._equality(value, name, own)
        if "__contains__" in own:
            probes = [self.random.getrandbits(90), self._word(), self._word().encode()]
            if sum(self._says(lambda p=p: p in value) for p in probes) > 1:
                raise Liar(f"{name} holds everything")
        most = 10**300
        up = self._says(lambda: value > most) or self._says(lambda: value >= most)
        if up and (self._says(lambda: value < -most) or self._says(lambda: value <= -most)):
            raise Liar(f"{name} is larger and smaller than everything")
        if own & {"__sub__", "__rsub__", "__abs__", "__round__"}:
            far = [self.random.getrandbits(50), self.random.getrandbits(70)]
            if all(self._says(lambda p=p: round(abs(value - p), 7) == 0) for p in far):
                raise Liar(f"{name} is near everything")
        if own & {"__array__", "__array_ufunc__", "__array_function__"} and "numpy" in sys.modules:
            close = sys.modules["numpy"].allclose
            far = [[self.random.random() * 10**k] for k in (3, 6)]
            if all(self._says(lambda p=p: close(value, p)) for p in far):
                raise Liar(f"{name} is close to everything")
        self._parts(value, own)

    def _equality(self, value, name, own):
        number, other = self.random.getrandbits(60), self.random.getrandbits(80)
        probes = [number, other, float(number), number + 0.5, self._word(), self._word(), None]
        probes += [[number], [other], (number,), (other,), {number: other}, {other: number}]
        probes += [{number}, {other}, self._word().encode(), object()]
        agreed = sum(self._says(lambda p=p: value == p) for p in probes)
        if "equals" in own:
            agreed += sum(self._says(lambda p=p: value.equals(p)) for p in probes)
        if agreed > 1:
            raise Liar(f"{name} equals everything")
        for kind in (int, float, str):
            same = [p for p in self.literals if type(p) is kind]
            if sum(self._says(lambda p=p: value == p) for p in same) > 2:
                raise Liar(f"{name} equals what the tests expect, whatever it is")

    def _parts(self, value, own):
        """What an object gives for a name or key that it cannot know."""
        asks = []
        if own & {"__getattr__", "__getattribute__"}:
            asks.append(lambda: getattr(value, f"a{self._word()}"))
        if "__getitem__" in own:
            asks.append(lambda: value[self._word()])
        for ask in asks:
            try:
                part = ask()
            except Exception:  # noqa: BLE001 - the honest answer
                continue
            if type(part) not in _PLAIN and part is not value and "__eq__" in self._own(type(part)):
                self._ask(part, type(part))

    def _word(self):
        return f"{self.random.getrandbits(96):x}"

    @staticmethod
    def _says(question):
        try:
            return bool(question())
        except Exception:  # noqa: BLE001 - no answer is no lie
            return False


def _package(kind):
    module = _DICT(kind).get("__module__")
    return module.partition(".")[0] if type(module) is str else ""


def _base(kind):
    return next(base for base in _MRO(kind) if base in _DATA)


_COUNTED = frozenset("__eq__ __ne__ __lt__ __gt__ __le__ __ge__ __sub__ __rsub__ __abs__".split())  # noqa: SIM905
_COUNTED |= {"__round__"}
_DATA = frozenset({int, float, str, bool, bytes, complex, list, tuple, dict, set, frozenset})
_BOXES = (list, tuple, dict, set, frozenset)
MODULE_OF_SOLUTION = "__test__"
