"""Images in rows of columns as PNG in data URIs, for pages that open offline."""

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.search.selection.corpora import Corpus
from shoal.trainables.classifier_settings import CHANNELS

LEAST_SIDE, MOST_SIDE = 8, 96  # pixels; smaller arrays are no images, larger ones are thinned out
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> PNG's number for grey, RGB, RGBA
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLUMNS_OF_PICTURES = "display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr))"
GALLERY = f"{COLUMNS_OF_PICTURES}; gap: 14px 12px; margin: 8px 0 14px"
WRAPPED = "white-space: pre-wrap; overflow-wrap: anywhere"
BELOW_PICTURE = "margin: 6px 0"
IN_GALLERY = "border: 0; padding: 0; margin: 0; background: none; min-width: 0"


def picture_fields(corpus: Corpus) -> tuple[str, ...]:
    """Return the columns of a corpus's rows that hold images."""
    columns, row_type = corpus.data.columns, corpus.manifest.row_type
    fields = [(name, row_type[name].base, row_type[name].shape) for name in row_type.names or ()]
    return tuple(
        name
        for name, kind, shape in fields
        if kind.kind in "fiub" and is_image(shape) and not (name in columns and columns[name].kind == "text")
    )


def is_image(shape: tuple[int, ...]) -> bool:
    """Say whether an array of this shape is an image: its sides, with the channels last or first or none."""
    if len(shape) == 3:
        shape = shape[:2] if shape[2] in CHANNELS else shape[1:] if shape[0] in CHANNELS else ()
    return len(shape) == 2 and min(shape) >= LEAST_SIDE


def picture(image: NDArray[Any]) -> str:
    """Return an image as a data URI; a large one is thinned out.

    Bytes are shown as they are; the range of other numbers is stretched from black to white, and what is not
    finite is black.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    elif image.shape[2] not in CHANNELS:
        image = np.moveaxis(image, 0, 2)
    step = -(-max(image.shape[:2]) // MOST_SIDE)
    image = image[::step, ::step]
    found = image if image.dtype == np.uint8 else stretched(image.astype(np.float64))
    return f"data:image/png;base64,{base64.b64encode(png(found)).decode()}"


def stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    known = np.isfinite(values)
    low, high = (values[known].min(), values[known].max()) if known.any() else (0.0, 0.0)
    shares = (np.where(known, values, low) / 2 - low / 2) / (
        (high / 2 - low / 2) or 1.0
    )  # halves never overflow
    return np.asarray(np.rint(255 * shares), np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """Return an image `(height, width, channels)` of bytes as a PNG file."""
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = image.reshape(height, -1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def row_as_html(row: int, said: str, text: str, pictures: Mapping[str, str]) -> str:
    """Return a row as a page shows it: its pictures, what is said of it, and its text."""
    style = f"image-rendering: pixelated; width: {MOST_SIDE}px; max-width: 100%; display: block"
    drawn = "".join(
        f'<img alt="{escape(name)} of row {row}" title="{escape(name)}" style="{style}" src="{uri}">'
        for name, uri in pictures.items()
    )
    whole = f'<pre style="{WRAPPED}">{escape(text)}</pre>' if text else ""
    return f'{drawn}<p class=soft style="{BELOW_PICTURE}">{escape(said)}</p>{whole}'


def rows_as_html(drawn: Sequence[str], pictured: bool) -> str:
    """Return rows one below the other, or those with pictures side by side."""
    if not pictured:
        return "".join(drawn)
    each = "".join(f'<figure style="{IN_GALLERY}">{row}</figure>' for row in drawn)
    return f'<div style="{GALLERY}">{each}</div>'
