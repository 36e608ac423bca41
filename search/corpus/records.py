"""Read texts from JSON: objects in lines, in an array, or one after another; each wrong object is a `Bad`."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from shoal.search.corpus.picking import Content, Pick
from shoal.search.corpus.quarantine import BOM, EXCERPT, Bad

LINES_LOOKED_AT = 20  # so many lines decide whether a file of another name is JSON
LENIENT = json.JSONDecoder(parse_int=float)  # int() refuses more than 4300 digits, JSON does not
BETWEEN = re.compile(r"[\s,\ufeff]*")
NEXT = re.compile(r"[,\[\]{}]")
JSON_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def records(spans: Iterable[bytes], pick: Pick) -> Iterator[Content]:
    """Yield the document of each line of JSON."""
    for span in spans:
        for line in span.split(b"\n"):
            if bare(line):
                yield record_text(line, pick)


def bare(content: bytes) -> bytes:
    """Return what stands between blanks and byte order marks."""
    content = content.strip()
    while content.startswith(BOM):
        content = content[len(BOM) :].strip()
    return content


def record_text(line: bytes, pick: Pick) -> Content:
    """Return the document in one object of JSON."""
    try:
        found = decoded(bare(line).decode())
    except UnicodeDecodeError:
        return Bad("not UTF-8", line[:EXCERPT])
    except json.JSONDecodeError:
        return Bad("each line must be JSON", line[:EXCERPT])
    except Exception as error:
        return Bad(undecodable(error), line[:EXCERPT])
    return pick.of(found, "line", line[:EXCERPT])


def decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # int() raises it
        return LENIENT.decode(text)


def undecodable(error: Exception) -> str:
    """Return why a text that may well be JSON cannot be decoded."""
    if isinstance(error, json.JSONDecodeError):
        return "must be JSON"
    if isinstance(error, RecursionError):
        return "JSON must not be nested so deeply"
    return f"cannot be decoded as JSON: {type(error).__name__}: {str(error)[:EXCERPT]}"


def values(content: bytes, pick: Pick) -> Iterator[Content]:
    """Yield the document of each object of an array, or of objects that follow one another over several lines.

    An object that cannot be decoded is skipped up to its closing bracket; without one the rest is lost.
    """
    text = content.decode(errors="surrogateescape")  # bytes that are not UTF-8 spoil only their own record
    place = BETWEEN.match(text).end()  # type: ignore[union-attr]  # BETWEEN matches the empty text, so never None
    array = text[place] == "["
    place, found, closed = place + array, 0, not array
    while (place := BETWEEN.match(text, place).end()) < len(text):  # type: ignore[union-attr]
        if array and text[place] == "]":
            closed, place = True, place + 1
            break
        content_, end = _value(text, place, pick)
        yield content_
        found += 1
        if end is None:
            yield Bad("JSON that breaks off", documents=round(found * (len(text) - place) / max(place, 1)) or 1)
            return
        place = end
    if not closed:
        yield Bad("a JSON array must end in ], but this one breaks off")
    elif text[place:].strip():
        yield Bad(
            "a JSON array must end its file, but something follows",
            text[place:][:EXCERPT].encode(errors="replace"),
        )


def _value(text: str, place: int, pick: Pick) -> tuple[Content, int | None]:
    """Return an object's document and where the object ends, or None if it does not end."""
    excerpt = text[place : place + EXCERPT].encode(errors="surrogateescape")
    for decoder in (json.JSONDecoder(), LENIENT):
        try:
            found, end = decoder.raw_decode(text, place)
        except Exception as error:
            reason = undecodable(error)
        else:
            content = pick.of(found, "element", excerpt)
            return _bytes(found, pick.single) if pick.single and isinstance(content, bytes) else content, end
    return Bad(reason, excerpt), _end(text, place)


def _bytes(found: dict[str, Any], field: str) -> bytes:
    """Return a field's text with bytes that are not UTF-8 restored, so that they are noticed later."""
    value = found[field]
    try:
        return value.encode(errors="surrogateescape") if isinstance(value, str) else value
    except UnicodeEncodeError:
        return value.encode(errors="surrogatepass")


def _end(text: str, place: int) -> int | None:
    """Return where a value ends, by its brackets alone; always behind its beginning."""
    if text[place] not in '{["':
        following = NEXT.search(text, place + 1)
        return following.start() if following else None
    depth = 0
    for token in JSON_TOKENS.finditer(text, place):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        if depth <= 0:
            return token.end() if depth == 0 else token.start()
    return None


def json_form(head: bytes, whole: bool, named: bool, pick: Pick) -> str:
    """Return how a file holds JSON by its first bytes: as `lines`, as `values`, or not at all (``).

    `whole` says that these are all its bytes, `named` that its name says JSON; else most of it must look so.
    """
    text = bare(head).decode(errors="replace")
    if not text or text[0] not in "{[":
        return "lines" if named else ""
    if re.match(r"\[\s*(\{|\]\s*$)", text):
        first = _first(text, text.find("{")) if "{" in text else {}
        certain = _has(first, pick) or (first is None and _holds(text, pick))
        return "values" if named or certain else ""
    lines = [line for line in text.split("\n") if line.strip()]
    if not whole and len(lines) > 1:
        lines.pop()
    found = [_first(line, 0, all_of=True) for line in lines[:LINES_LOOKED_AT]]
    objects = [each for each in found if isinstance(each, dict)]
    if isinstance(found[0], dict) or (len(lines) == 1 and not whole):
        likely = len(objects) * 2 > len(found) and (len(found) > 1 or _has(objects[0], pick))
        return "lines" if named or likely or (not objects and _holds(text, pick)) else ""
    first = _first(text, 0)
    if isinstance(first, dict):
        return "values" if named or _has(first, pick) else ""
    if named or len(objects) * 2 > len(found):
        spread = not whole and not objects and lines[0].rstrip()[-1:] in "{[,"
        return "values" if spread else "lines"
    return ""


def _first(text: str, place: int, all_of: bool = False) -> Any:
    """Return the value that begins there, or that the whole text is; None where there is none."""
    try:
        return decoded(text) if all_of else LENIENT.raw_decode(text, place)[0]
    except (ValueError, RecursionError):
        return None


def _has(found: Any, pick: Pick) -> bool:
    return isinstance(found, dict) and all(field in found for field in pick.fields)


def _holds(text: str, pick: Pick) -> bool:
    """Say whether an object whose end is not seen has the first field."""
    return re.search(rf'[{{,]\s*"{re.escape(pick.fields[0])}"\s*:', text) is not None
