"""BigCodeBench's docstring examples to a unittest module of ours.

An example counts when its result is a Python literal and the function was called in it or before
it. All that stands before it in the docstring is run first, in the same method, as doctest would.
"""

from __future__ import annotations

import ast
import doctest
import textwrap
from collections.abc import Container, Iterator

from harness.benchmarks.syntax import parse
from harness.types import UnitTests

_PARSER = doctest.DocTestParser()


# Task:examples that the reference confirmed and a body of `pass` fails (docs/protocols.md).
_CONFIRMED = (
    "0:1 1:1 2:1,2 3:1,2,3 4:1 5:1 10:1,2 11:1 21:1,2,3,4 23:1 24:1,2 26:1 27:1 33:1 34:1,2 "
    "39:1,2 76:1,3 77:1,2 78:1,2 80:1,2 81:2 82:1,2 83:1,2 89:1,2,3,4 94:1,2 97:1,2 98:1,2 "
    "100:1,2,3 109:1 112:1 113:1,2 114:1,2 115:1 116:1,2 121:1 122:1,2 124:1 125:1,2 127:1,2 "
    "128:1 130:1,2 131:1,2 135:1,2 141:1 143:1 145:1,2 146:1,2 147:1,2 148:1 160:1 162:1 163:1 "
    "167:1 169:1,2 172:1 178:1 182:1 186:1,2 189:1 191:1,2,3 192:1 193:1,2 194:1,2 196:1 198:1,2 "
    "200:1,2 202:1 203:1 204:1,2,3 205:1,2 206:1 208:1 217:1,2 219:1 222:1 223:1,2 224:1 226:1,2 "
    "228:1,2 229:1 232:1 234:1 236:1 239:1 243:1,2 245:1 246:1,2 247:1 249:1,2,3,4,5 250:1 251:1 "
    "253:1 254:1 255:1 257:1 260:1 261:1 262:1 264:1,2 265:1 268:1,2 269:1 270:1 271:1 273:1,2 "
    "274:1,2 275:1,2 276:1,2 277:1 278:1,2 279:1,2 281:1 283:1 288:1 292:1,2 293:1,2 294:1 295:1 "
    "296:1 297:1 298:1 299:1,2 300:1 301:1,2 302:1 303:1 304:1 305:1 309:1 310:1 312:1,2 316:1 "
    "317:1 318:1 321:1,2 322:2 323:1 325:1 329:1 330:1 331:1,2 332:1 333:1,2 336:1 337:1 338:1,2 "
    "339:1,2 341:1 342:1 344:1 345:1 346:1 348:1 349:1 350:1 351:1,2,3 352:1 353:1,2 355:1,2 "
    "356:1,2 357:1 358:1 359:1,2 361:1 363:1 364:1 365:1 366:1,2 368:1 370:1 371:1 372:1 375:1 "
    "376:1 377:1,2 379:1 380:1 382:1 384:1,2 385:1 386:1 391:1 392:1,2 394:1,2,3 398:1,2 400:1 "
    "411:1 413:1 427:1 429:1 431:1 433:1,2 436:1 442:1 447:1 450:1 451:1 452:1 453:1,2 455:1,2 "
    "456:1 464:1,2 466:1,2 475:1 476:1 481:1,2 490:1,2 491:1 499:1,2 501:1 505:1,2 511:1 512:1 "
    "520:1 523:1,2 524:1 533:1,2 534:1 535:1 541:1,2 542:1 543:1,2 544:1,2 545:1 546:1,2 547:1 "
    "549:1,2 550:1,2 554:1,2 556:1,2 557:1 559:1 561:1 563:1,2 565:1,2 566:1,2 569:1,2 570:1,2 "
    "575:1,2 576:1,2 580:1,2,3,4 581:1,2,3 582:1,2,3 588:1,2,3,4 589:1,2,3,4 591:1,2 592:1,2,3 "
    "593:1,2,3 595:1,2 597:1,2 598:1 600:1,2 603:1 604:1 606:1,2,3 616:1,2 626:1 630:1 631:1 "
    "633:1,2 635:1,2,3,4 637:1 640:1,2,3,4 652:1 654:1 655:1 656:1 666:1,2 667:1 668:1,2 670:1,2 "
    "671:1 672:1 673:1 674:1 675:1 679:1 682:1 694:1 696:1 697:1 701:1 704:1 705:1 706:1 708:1 "
    "709:1 714:1,2 718:1 726:1,2 732:1 733:1 735:1 736:1 737:1 738:1 739:1 741:1 746:1,2,3 "
    "747:1,2 751:1 752:2 753:1,2 757:1 766:1,2,3 767:1 769:1 772:1,2,3 775:1 787:1 797:1,2 798:2 "
    "802:1 807:1,2,3,4 810:1,2 816:1 817:1,2 818:1 820:1 821:1,2 822:1,2 824:1 825:1,2 827:1,2 "
    "829:1,2 830:1,2 831:1,2 832:1 833:1,2,3,4 834:1 839:1 840:1 841:1 842:1 844:1 845:1 "
    "848:1,2,3,4 849:1 851:1 852:1,2 854:1,2,3,4 855:1 857:2 859:1 860:1,2 861:1,2 863:1 868:1,2 "
    "871:1,2,3,4 872:1 874:1 876:2 879:1,2 883:1 884:1,2 899:1 900:1,2,3 903:1,2 906:1,2 907:2 "
    "911:1,2 912:1,2 914:1 925:1 928:1 930:1,2 932:1,2,3,4,5 934:1,2 943:1,2 944:1,2,3 946:1 "
    "949:1,2 953:1,2 954:1,2 956:1,2 957:1,2 958:1,2 959:1 960:1,2 967:1 970:1 972:1,2 976:1 "
    "978:1 986:1 989:1,2 990:1,2 991:1,2 1021:1,2 1024:1 1025:1 1026:1 1027:1 1031:1 1032:1 "
    "1034:1,2 1035:1 1036:1 1056:1 1058:1,2,3,4,5 1063:1 1064:1 1069:1 1071:1 1074:1 1077:1 "
    "1078:1 1080:1 1082:1 1089:1,2 1094:1 1097:1 1098:1 1099:1,2 1100:1 1104:1 1107:1 1108:1 "
    "1110:1 1111:1 1115:1 1116:1 1117:1 1124:2,3 1126:1 1132:1 1139:1"
)


def confirmed(task_id: str) -> frozenset[int]:
    """The numbers of a task's examples that can be used."""
    pairs = dict(part.split(":") for part in _CONFIRMED.split())
    numbers = pairs.get(task_id.removeprefix("BigCodeBench/"), "")
    return frozenset(map(int, filter(None, numbers.split(","))))


def doctests(prompt: str, entry_point: str, confirmed: Container[int]) -> UnitTests | None:
    """A test method for each example numbered in `confirmed`; None when there is none.

    Examples are numbered from 1 in the docstring's order, counting those with a literal result.
    """
    before: list[str] = []
    methods: dict[str, str] = {}
    called, number = False, 0
    for statement, check in _examples(prompt, entry_point):
        called = called or entry_point in statement
        if check is not None and called:
            number += 1
            if number in confirmed:
                body = textwrap.indent("\n".join((*before, check)), " " * 8)
                methods[f"test_example_{number}"] = body
        before.append(statement)
    if not methods:
        return None
    defined = "\n".join(f"    def {name}(self):\n{body}" for name, body in methods.items())
    source = f"import unittest\n\nclass TestCases(unittest.TestCase):\n{defined}\n"
    return UnitTests(source, tuple(sorted(methods)))


def _examples(prompt: str, entry_point: str) -> Iterator[tuple[str, str | None]]:
    """(statement, check or None) of the examples, up to one that is no Python."""
    try:
        functions = [n for n in parse(prompt).body if isinstance(n, ast.FunctionDef)]
        text = next((ast.get_docstring(f) for f in functions if f.name == entry_point), None)
        for example in _PARSER.get_examples(text or ""):
            tree = parse(example.source)
            yield ast.unparse(tree), _check(tree, example.want)
    except (SyntaxError, ValueError):
        return


def _check(tree: ast.Module, want: str) -> str | None:
    """A statement that holds the example's value against its result; None without a literal one."""
    try:
        (statement,) = tree.body
        expected = ast.literal_eval(want.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(statement, ast.Expr):
        return None
    value = statement.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "print" and len(value.args) == 1:
        return f"self.assertEqual(str({ast.unparse(value.args[0])}), {want.strip()!r})"
    return f"self.assertEqual({ast.unparse(value)}, {expected!r})"
