"""Random mutants of the two packages, each judged by the tests of its module: what no test notices is told.

    python -m tests.mutants --count 200 --seed 1 --work DIR
    python -m tests.mutants --count 200 --seed 1 --work DIR --again     # the survivors once more, after new tests

A mutant is one small change: a comparison flipped, a condition negated, `and` and `or` or min and max swapped, a number
one off, a statement or a keyword argument dropped. They are drawn package by package, as many of each as it has places
for them. A mutant is made in a private copy of the tree in DIR and judged by the tests that mirror its module and by
those that import it; if they pass, by the tests of the whole package's folder. One that no test fails survives. A test
that fails without the mutant, too, does not count. The same call resumes; DIR/results.jsonl has every verdict.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("tagclip", "wsss")
# Loaded once and inherited by every judge; nothing of the tree itself.
PRELOADED = ("numpy", "torch", "PIL.Image", "cv2", "pytest", "hypothesis", "open_clip", "mmengine", "mmcv")
COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
EXTREMES = {"min": "max", "amin": "amax", "argmin": "argmax", "minimum": "maximum"}
EXTREMES |= {other: one for one, other in EXTREMES.items()}
QUIET = ("debug", "info")  # of a logger: what nobody acts on
# What no test can see: checks of what always holds, and what this system does by itself.
UNSEEN_KEYWORDS = ("strict", "frozen", "encoding")
MOST_IMPORTERS = 6


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        module: path of the file in the tree.
        number: of the place among those of the module.
        line: of the place.
        kind: of the change.
        change: what it does, for a person.
    """

    module: str
    number: int
    line: int
    kind: str
    change: str

    @property
    def key(self) -> str:
        """The same for the same change of the same code."""
        return f"{self.module}:{self.line}:{self.number}:{self.change}"


@dataclass(frozen=True)
class Place:
    """Where a mutant can be made: its line, the kind of change, the code, and what makes the change in the tree."""

    line: int
    kind: str
    text: str
    change: Callable[[], object]


def places(tree: ast.Module) -> Iterator[Place]:
    """Every place of a module, in a fixed order."""
    left_out = _left_out(tree)
    for parent in ast.walk(tree):
        if parent in left_out:
            continue
        yield from _of_expression(parent)
        yield from _of_statements(parent, left_out)


def _left_out(tree: ast.Module) -> set[ast.AST]:
    """What no test can see: annotations, overloads, imports for type checkers, texts of classes and functions."""
    found: set[ast.AST] = set()

    def leave(node: ast.AST | None) -> None:
        found.update(() if node is None else ast.walk(node))

    for node in ast.walk(tree):
        leave(getattr(node, "annotation", None))
        leave(getattr(node, "returns", None))
        if isinstance(node, ast.FunctionDef) and (
            node.name == "__repr__" or any("overload" in ast.unparse(one) for one in node.decorator_list)
        ):
            leave(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            leave(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            leave(node)
    return found


def _of_expression(node: ast.AST) -> Iterator[Place]:
    line, text = getattr(node, "lineno", 0), f"in `{_short(node)}`" if isinstance(node, ast.expr) else ""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            flipped = COMPARISONS[type(operator)]()
            yield Place(line, "comparison", text, partial(node.ops.__setitem__, index, flipped))
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield Place(line, "and/or", text, partial(setattr, node, "op", swapped))
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield Place(line, "one off", text, partial(setattr, node, "value", node.value + 1))
    elif isinstance(node, ast.Call):
        attribute = "id" if isinstance(node.func, ast.Name) else "attr"
        if (other := EXTREMES.get(getattr(node.func, attribute, ""))) is not None:
            yield Place(line, "min/max", text, partial(setattr, node.func, attribute, other))
        for index, keyword in enumerate(node.keywords):
            if keyword.arg is not None and keyword.arg not in UNSEEN_KEYWORDS:
                yield Place(line, "keyword", f"without {keyword.arg} {text}", partial(node.keywords.pop, index))
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Constant):
        is_not = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        negated = node.test.operand if is_not else ast.UnaryOp(ast.Not(), node.test)
        yield Place(line, "condition", f"in `{_short(node.test)}`", partial(setattr, node, "test", negated))


def _of_statements(node: ast.AST, left_out: set[ast.AST]) -> Iterator[Place]:
    for field in ("body", "orelse", "finalbody"):
        statements = getattr(node, field, None)
        for index, one in enumerate(statements if isinstance(statements, list) else ()):
            if one not in left_out and _may_go(one):
                drop = partial(statements.__setitem__, index, ast.Pass())
                yield Place(one.lineno, "statement", f"without `{_short(one)}`", drop)


def _may_go(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        name = statement.value.func if isinstance(statement.value, ast.Call) else None
        return not (isinstance(name, ast.Attribute) and name.attr in QUIET)
    if isinstance(statement, ast.Assign):  # of a name, everything after would be a NameError
        return not all(isinstance(target, ast.Name | ast.Tuple) for target in statement.targets)
    return isinstance(statement, ast.AugAssign | ast.Raise | ast.Delete | ast.Continue | ast.Break)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:87]}..."


def draw(root: Path, count: int, seed: int) -> list[Mutant]:
    """Mutants of the packages' folders, as many of each as it has places for them."""
    rng = random.Random(seed)
    groups: dict[str, list[Mutant]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            module = path.relative_to(root).as_posix()
            for number, place in enumerate(places(ast.parse(path.read_text(encoding="utf-8")))):
                groups[str(path.parent)].append(Mutant(module, number, place.line, place.kind, place.text))
    total = sum(map(len, groups.values()))
    chosen = []
    for name in sorted(groups):
        chosen += rng.sample(groups[name], min(len(groups[name]), max(1, round(count * len(groups[name]) / total))))
    rng.shuffle(chosen)
    return chosen[:count]


def mutated(source: str, number: int) -> tuple[str, str]:
    """The module with one change, and the changed line as it reads now."""
    tree = ast.parse(source)
    before = ast.unparse(tree)
    next(islice(places(tree), number, None)).change()
    after = ast.unparse(ast.fix_missing_locations(tree))
    lines = [new for old, new in zip(before.splitlines(), after.splitlines(), strict=False) if old != new]
    return after, " ".join((lines or [""])[0].split())


def judges_of(root: Path, module: str) -> tuple[list[str], list[str]]:
    """Test files that mirror or import a module, and those of its package's folder beside them."""
    path = Path(module)
    name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    mirror = root / "tests" / path.parent
    everything = sorted(file for file in (root / "tests").rglob("test_*.py") if "/oracle/" not in file.as_posix())
    uses = re.compile(rf"(from {re.escape(name)} import|import {re.escape(name)}\b|[\"']{re.escape(name)}\b"
                      rf"|from {re.escape(name.rpartition('.')[0])} import .*\b{path.stem}\b)")  # fmt: skip
    own = [mirror / f"test_{path.stem}.py"]
    users = [file for file in everything if uses.search(file.read_text(encoding="utf-8"))]
    users.sort(key=lambda file: (file.parent != mirror, file.stat().st_size))
    first = [file for file in dict.fromkeys([*own, *users[:MOST_IMPORTERS]]) if file.is_file()]
    rest = [file for file in [*sorted(mirror.glob("test_*.py")), *users] if file not in first]
    if path.parts[:2] == ("wsss", "cli"):
        rest += [file for file in sorted((root / "tests" / "tools").glob("test_*.py")) if file not in first]
    return [_name(file, root) for file in first], [_name(file, root) for file in dict.fromkeys(rest)]


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


class Judge:
    """Runs tests in a copy of the tree, in a child of this process.

    Args:
        tree: the copy.
        seconds: most time of one call.
    """

    def __init__(self, tree: Path, seconds: float):
        self.tree, self.seconds = tree, seconds
        self.sound: dict[str, bool] = {}  # by test: whether it passes without a mutant
        for name in PRELOADED:
            importlib.import_module(name)

    def failing(self, tests: Sequence[str], leave_out: Sequence[str] = ()) -> str | None:
        """The first test that fails, "" if none does, None if the time ran out."""
        verdict = self.tree.parent / "verdict"
        verdict.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            self._run([*tests, *(f"--deselect={name}" for name in leave_out)], verdict)
        end = time.monotonic() + self.seconds
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None
            time.sleep(0.05)
        return verdict.read_text(encoding="utf-8") if verdict.is_file() else "the interpreter"

    def _run(self, arguments: list[str], verdict: Path) -> None:
        import pytest

        os.setpgid(0, 0)
        output = os.open(self.tree.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(self.tree)
        os.environ["PYTHONPATH"] = str(self.tree)
        sys.path[:] = [str(self.tree), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
        for name in [name for name in sys.modules if name.partition(".")[0] in (*PACKAGES, "tests")]:
            del sys.modules[name]
        failed: list[str] = []

        class Recorder:
            """Notes the first test that fails."""

            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed:
                    failed.append(report.nodeid)

            def pytest_collectreport(self, report: pytest.CollectReport) -> None:
                if report.failed:
                    failed.append(report.nodeid)

        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={self.tree.parent / 'tmp'}"]
        code = pytest.main([*options, *arguments], plugins=[Recorder()])
        name = failed[0] if failed else "" if code in (0, 5) else "pytest"
        verdict.write_text(name, encoding="utf-8")
        os._exit(0)


def judge(mutant: Mutant, judge_: Judge, clean: Path) -> dict[str, object]:
    """The verdict on one mutant, as a record."""
    path, source = judge_.tree / mutant.module, (clean / mutant.module).read_text(encoding="utf-8")
    text, reads = mutated(source, mutant.number)
    start, killer, unsound = time.monotonic(), "", []
    try:
        for tests in judges_of(clean, mutant.module):
            while tests:
                path.write_text(text, encoding="utf-8")
                found = judge_.failing(tests, unsound)
                if not found:  # none failed, or the time ran out
                    killer = killer if found == "" else "time"
                    break
                path.write_text(source, encoding="utf-8")
                if found not in judge_.sound:
                    judge_.sound[found] = "::" not in found or judge_.failing([found]) == ""
                if judge_.sound[found]:
                    killer = found
                    break
                unsound.append(found)
            if killer and killer != "time":
                break
    finally:
        path.write_text(source, encoding="utf-8")
    verdict = "survived" if not killer else "time ran out" if killer == "time" else "killed"
    return {"key": mutant.key, **asdict(mutant), "reads": reads, "verdict": verdict, "by": killer,
            "seconds": round(time.monotonic() - start, 1)}  # fmt: skip


def copy_tree(target: Path) -> None:
    """The tracked files of this tree."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, target / name)


def table(records: Sequence[dict]) -> str:
    """Counts by kind of change, and the mutants that were not killed."""
    counts = Counter((record["kind"], record["verdict"]) for record in records)
    kinds = sorted({kind for kind, _ in counts})
    verdicts = ("killed", "survived", "time ran out")
    lines = ["| change | killed | survived | time ran out |", "|---|---:|---:|---:|"]
    lines += [f"| {kind} | {' | '.join(str(counts[kind, verdict]) for verdict in verdicts)} |" for kind in kinds]
    totals = [sum(counts[kind, verdict] for kind in kinds) for verdict in verdicts]
    lines += [f"| all {len(records)} | {' | '.join(map(str, totals))} |", "", "| not killed | reads now |", "|---|---|"]
    lines += [f"| {record['module']}:{record['line']}, {record['kind']}: {record['change']} | {record['reads']} |"
              for record in records if record["verdict"] != "killed"]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--work", type=Path, required=True, help="folder for the copies and the verdicts")
    parser.add_argument("--seconds", type=float, default=300, help="most time of one call of the tests")
    parser.add_argument("--minutes", type=float, help="begin no mutant after this time")
    parser.add_argument("--again", action="store_true", help="judge those that were not killed again, by today's tests")
    args = parser.parse_args()
    work, results = args.work.absolute(), args.work.absolute() / "results.jsonl"
    clean, tree = work / "clean", work / "tree"
    if args.again or not clean.is_dir():
        sources = {}
        if clean.is_dir():  # the sources stay those that the mutants were drawn from; the tests are new
            sources = {path: path.read_bytes() for package in PACKAGES for path in (clean / package).rglob("*.py")}
        copy_tree(clean)
        for path, content in sources.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(clean, tree)
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    known = {record["key"]: record for record in map(json.loads, lines)}
    judge_ = Judge(tree, args.seconds)
    end = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    for mutant in draw(clean, args.count, args.seed):
        there = known.get(mutant.key)
        if time.monotonic() > end or (there and (not args.again or there["verdict"] == "killed")):
            continue
        record = known[mutant.key] = judge(mutant, judge_, clean)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['verdict']:>12} {record['seconds']:>6} s {mutant.key}  {record['reads']}  {record['by']}",
              file=sys.stderr, flush=True)  # fmt: skip
    print(table(list(known.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
