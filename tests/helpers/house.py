"""The house, measured: sizes, circles, names and comments of the source. `make house` prints the table."""

import ast
import io
import json
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
PACKAGES = ("policies", "trainables", "cluster", "search")
CLONE = 8  # equal lines in a row that count as a clone
LONG_FUNCTION, LONG_FILE = 50, 300  # lines
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)
# how a comment begins that hangs behind a name and is no sentence
HANGING = ("of ", "what ", "who ", "whose ")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> dict[str, str]:
    """Return the text of each source file, by dotted name."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in files}


def functions(tree: ast.AST) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Return the lines of a function without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def depth(node: ast.AST) -> int:
    """Return how many blocks stand within one another."""
    inner = max((depth(child) for child in ast.iter_child_nodes(node)), default=0)
    return inner + isinstance(node, BLOCKS)


def annotated(function: Function) -> tuple[int, int]:
    """Return how many arguments say their type, of how many."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    asked = [argument for argument in given if argument.arg not in ("self", "cls")]
    return sum(argument.annotation is not None for argument in asked), len(asked)


def public_names(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines at its top."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_")}


def comments(text: str) -> list[tuple[str, bool]]:
    """Return each comment, and whether it has a line of its own."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            found.append((token.string.lstrip("# "), token.line.strip().startswith("#")))
    return found


def cloned_lines(texts: dict[str, str]) -> int:
    """Return how many lines stand of a run of eight that stands in another place too."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, text in texts.items():
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith(("import ", "from ", "#"))]
        for start in range(len(lines) - CLONE + 1):
            places[tuple(lines[start : start + CLONE])].append((name, start))
    twice = [place for each in places.values() if len(each) > 1 for place in each]
    return len({(name, start + line) for name, start in twice for line in range(CLONE)})


def ambiguous(texts: dict[str, str]) -> dict[str, list[str]]:
    """Return the public names that two or more modules define, and these modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, text in texts.items():
        for name in sorted(public_names(ast.parse(text))):
            found[name].append(module)
    return {name: homes for name, homes in sorted(found.items()) if len(homes) > 1}


def measure() -> dict[str, Any]:
    """Return the table of the house."""
    texts = sources()
    trees = {name: ast.parse(text) for name, text in texts.items()}
    each = [function for tree in trees.values() for function in functions(tree)]
    bodies = np.array([body_lines(function) for function in each])
    lines = {name: text.count("\n") for name, text in texts.items()}
    public = [function for function in each if not function.name.startswith("_")]
    typed = np.array([annotated(function) for function in each]).sum(axis=0)
    said = [comment for text in texts.values() for comment in comments(text)]
    names = Counter(name for tree in trees.values() for name in public_names(tree))
    return {
        "files": len(texts),
        "lines": sum(lines.values()),
        "function body: median, p90, longest": [int(np.quantile(bodies, q)) for q in (0.5, 0.9, 1.0)],
        "functions over 50 lines": int((bodies > LONG_FUNCTION).sum()),
        "nesting, p95": int(np.quantile([depth(function) for function in each], 0.95)),
        "files over 300 lines": [name for name, count in lines.items() if count > LONG_FILE],
        "clone share": round(cloned_lines(texts) / sum(lines.values()), 4),
        "arguments annotated": round(float(typed[0] / typed[1]), 3),
        "returns annotated": round(sum(f.returns is not None for f in each) / len(each), 3),
        "public functions with docstring": round(
            sum(ast.get_docstring(function) is not None for function in public) / len(public), 3
        ),
        "comments": len(said),
        "of these on lines of their own": round(sum(own for _, own in said) / len(said), 3),
        "hanging comments": sum(comment.startswith(HANGING) for comment, _ in said),
        "names in two modules or more": sum(count > 1 for count in names.values()),
        "public names": len(names),
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
    if "--names" in sys.argv:
        print(json.dumps(ambiguous(sources()), indent=1))
