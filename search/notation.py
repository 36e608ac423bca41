"""One reader and one writer of YAML, for runs' files and for run directories.

Written values read back equal. If YAML would likely take a value for something that its writer does not mean
(a date, a number with a leading 0, a key twice), it is refused with its line, and so is an unreadable file.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from shoal.search.errors import InputError

DEEPEST = 64  # levels of nesting: far more than any run has, and fewer than Python's stack holds
MOST_YAML_VALUES = 1_000_000  # limit on values; an alias counts as all values it stands for
DIGITS = 4300  # digits of the longest whole number that Python prints
TAG = "tag:yaml.org,2002:"
QUOTE = "put it in quotes if it is a word"
UNWRITABLE = 10**DIGITS


class RefusedValue(yaml.YAMLError):
    """A value that is valid YAML, but that Shoal refuses, with its place in the text."""

    def __init__(self, said: str, mark: Any):
        super().__init__(said)
        self.said, self.problem_mark = said, mark


class Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for a word; everybody who writes it means a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            raise RefusedValue(
                f"brackets and mappings lie more than {DEEPEST} deep in one another", self.mark()
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def mark(self) -> Any:
        return self.peek_event().start_mark

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name = key.value
            if key.tag not in (f"{TAG}str", f"{TAG}merge"):
                raise RefusedValue(
                    f"a key must be a word, but {shown_key(key)}; put it in quotes", key.start_mark
                )
            line = key.start_mark.line + 1
            if name in lines:
                where = "twice in this line" if lines[name] == line else f"here and in line {lines[name]}"
                said = f"the key `{short(name)}` stands {where}; leave one of the two out"
                raise RefusedValue(said, key.start_mark)
            lines[name] = line
        return node

    def construct_document(self, node: Any) -> Any:
        count_values(node, {})
        return super().construct_document(node)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML passes on any error of Python's types
            kind = node.tag.removeprefix(TAG)
            raise RefusedValue(f"{short(str(node.value))} is no {kind}; {QUOTE}", node.start_mark) from error


class Dumper(yaml.SafeDumper):
    """Puts into quotes what Loader would not read as the same word."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for each in (Loader, Dumper):
    each.add_implicit_resolver(
        f"{TAG}float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    # YAML 1.1 reads 07 as a number and 08 as a word; both are refused
    each.add_implicit_resolver(f"{TAG}int", re.compile(r"^[-+]?0[0-9_]+$"), list("-+0"))


def shown_key(key: yaml.Node) -> str:
    if not isinstance(key, yaml.ScalarNode):
        return "this one is a list or a mapping"
    kind = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}
    return f"`{short(key.value)}` is read as {kind.get(key.tag.removeprefix(TAG), 'something else')}"


def count_values(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return how many values a node stands for, and how deep they lie in one another.

    Raises RefusedValue if they are too many or too deep: with aliases, a short text can be either.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) not in known:
        known[id(node)] = MOST_YAML_VALUES, DEEPEST  # a node that holds itself would never end
        inner = [count_values(each, known) for each in child_nodes(node)]
        known[id(node)] = 1 + sum(size for size, _ in inner), 1 + max((deep for _, deep in inner), default=0)
    size, deep = known[id(node)]
    if size > MOST_YAML_VALUES or deep > DEEPEST:
        raise RefusedValue(
            f"with its aliases it holds itself, more than {MOST_YAML_VALUES} values, or more than {DEEPEST} "
            f"levels",
            node.start_mark,
        )
    return size, deep


def child_nodes(node: Any) -> Iterator[Any]:
    for each in node.value:
        yield from each if isinstance(node, yaml.MappingNode) else [each]


def whole_number(loader: Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if re.fullmatch(r"[-+]?0[0-9_]+", text):
        plain = re.sub(r"^([-+]?)0[0_]*(?=[0-9])", r"\1", text)
        raise RefusedValue(f"{short(text)} begins with 0; write {short(plain)}, or {QUOTE}", node.start_mark)
    if ":" in text:
        raise RefusedValue(f"{short(text)} looks like a time; put it in quotes", node.start_mark)
    number = loader.construct_yaml_int(node) if len(text) < DIGITS else UNWRITABLE
    if abs(number) >= UNWRITABLE:
        raise RefusedValue(f"a number of more than {DIGITS} digits cannot be; {QUOTE}", node.start_mark)
    return int(number)


def real_number(loader: Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    if ":" in text:
        raise RefusedValue(f"{short(text)} looks like a time; put it in quotes", node.start_mark)
    number = float(loader.construct_yaml_float(node))
    if math.isinf(number) and "inf" not in text.lower():
        raise RefusedValue(
            f"{short(text)} is larger than numbers go; write .inf for infinity, or {QUOTE}", node.start_mark
        )
    return number


def date(loader: Loader, node: yaml.ScalarNode) -> Any:
    raise RefusedValue(
        f"{short(str(node.value))} looks like a date, which no value is; put it in quotes", node.start_mark
    )


def unknown(loader: Loader, node: yaml.Node) -> Any:
    kind = node.tag.removeprefix(TAG)
    text = short(str(node.value)) if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
    if kind in ("value", "merge"):
        raise RefusedValue(f"{text} has a meaning of its own in YAML; put it in quotes", node.start_mark)
    raise RefusedValue(f"{text} of the kind `{short(kind)}` is not taken; leave the kind out", node.start_mark)


Loader.add_constructor(f"{TAG}int", whole_number)
Loader.add_constructor(f"{TAG}float", real_number)
Loader.add_constructor(f"{TAG}timestamp", date)
for kind in ("binary", "omap", "pairs", "set"):
    Loader.add_constructor(f"{TAG}{kind}", unknown)
Loader.add_constructor(None, unknown)  # None means all other kinds


def read_yaml(text: str, place: str) -> Any:
    """Return the value that a text is; raises InputError with the place, the line and what to do."""
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{place}{line_of(error, text)}: {what(error)}.") from error


def write_yaml(values: Any) -> str:
    """Return the text from which `read_yaml` makes equal values."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, width=math.inf)


def read_change(text: str) -> Any:
    """Return the value of a change on the command line, where it is one value and not a document.

    Text in brackets or quotes is read as YAML. Other text is a number, true, false or null if it is written
    like one, and otherwise a word. Raises RefusedValue or YAMLError.
    """
    if text[:1] in ("[", "{", '"', "'"):
        check_tokens(text)
        return yaml.load(text, Loader)
    loader, plain = Loader(""), text.strip()
    if text and not plain:
        return text
    tag = loader.resolve(yaml.ScalarNode, plain, (True, False))
    if tag.removeprefix(TAG) not in ("int", "float", "bool", "null", "timestamp"):
        return text
    return loader.construct_object(yaml.ScalarNode(tag, plain), deep=True)


def check_tokens(text: str) -> None:
    """Refuse what a value on the command line cannot have: comments, anchors, words over several lines."""
    end = 0
    for token in yaml.scan(text, Loader):
        between = text[end : token.start_mark.index]
        odd = isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken)
        if odd or between.strip():
            raise RefusedValue(f"`{short(text[end:].strip())}` would be left out of it", token.start_mark)
        if isinstance(token, yaml.ScalarToken) and "\n" in text[token.start_mark.index : token.end_mark.index]:
            raise RefusedValue("a word may not go over several lines", token.start_mark)
        end = max(end, token.end_mark.index)


def what(error: yaml.YAMLError) -> str:
    """Return what is wrong, in one line."""
    if isinstance(error, RefusedValue):
        return error.said
    if isinstance(error, yaml.MarkedYAMLError):
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return f"is not YAML: {' '.join(said.split())}; put words with special characters in quotes"
    if isinstance(error, yaml.reader.ReaderError):
        return f"is not YAML: it holds the character {error.character!r}, which no text has"
    return f"is not YAML: {' '.join(str(error).split())}"


def line_of(error: yaml.YAMLError, text: str) -> str:
    """Return the line of an error as `:3`, or nothing if it has none."""
    if isinstance(error, yaml.reader.ReaderError):
        return f":{text.count(chr(10), 0, error.position) + 1}"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f":{mark.line + 1}" if mark is not None else ""


def short(text: str, most: int = 60) -> str:
    """Return a text of the user's for a message: in one line, and cut if it is long."""
    line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in " ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."
