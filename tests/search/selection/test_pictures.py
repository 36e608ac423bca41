"""Image rows are shown as pictures: what counts as one, and that a decoder finds the same numbers again."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest

from shoal.search.selection.page import readable_row
from shoal.search.selection.pictures import MOST_SIDE, is_image, picture, picture_fields
from shoal.search.selection.shown import readable_text
from shoal.search.tokenizers import open_tokenizer

RNG = np.random.default_rng(0)


def decoded(uri: str) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_are_shown_as_they_are(channels: int) -> None:
    image = RNG.integers(0, 256, (9, 12, channels)).astype(np.uint8)
    found = decoded(picture(image))
    assert np.array_equal(found.reshape(image.shape), image)
    # channels may come first, and a grey image needs no axis for them
    assert picture(np.moveaxis(image, 2, 0)) == picture(image)
    assert channels > 1 or picture(image[:, :, 0]) == picture(image)


def test_other_numbers_are_stretched_by_hand() -> None:
    image = np.full((8, 8), -1.0)
    image[0, :4] = 3.0, 1.0, np.nan, np.inf
    assert decoded(picture(image))[0, :5].tolist() == [255, 128, 0, 0, 0]
    assert decoded(picture(np.eye(8, dtype=bool)))[:2, 0].tolist() == [255, 0]
    far = np.array([-1.0, 1.0] * 32).reshape(8, 8) * np.finfo(np.float64).max
    assert decoded(picture(far))[0, :2].tolist() == [0, 255]
    for even in (np.zeros((8, 8)), np.full((8, 8), np.nan)):
        assert not decoded(picture(even)).any()


def test_a_large_image_is_thinned_out() -> None:
    image = RNG.integers(0, 256, (300, 150, 3)).astype(np.uint8)
    found = decoded(picture(image))
    assert max(found.shape) <= MOST_SIDE and np.array_equal(found, image[::4, ::4])


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((8, 8), True),
        ((28, 28, 1), True),
        ((3, 32, 32), True),
        ((32, 32, 4), True),
        ((64,), False),
        ((4, 30), False),
        ((30, 32, 2), False),
        ((3, 3, 64), False),
        ((), False),
    ],
)
def test_what_counts_as_an_image(shape: tuple[int, ...], wanted: bool) -> None:
    assert is_image(shape) == wanted


def test_images_stand_beside_the_other_fields_of_a_row() -> None:
    fields = [("scan", np.float32, (8, 8)), ("words", np.int32, (9, 16)), ("name", "<U4"), ("label", np.int64)]
    rows = np.zeros(1, fields)
    columns = {"words": SimpleNamespace(kind="text")}
    manifest = SimpleNamespace(row_type=rows.dtype)
    images = picture_fields(SimpleNamespace(data=SimpleNamespace(columns=columns), manifest=manifest))
    assert images == ("scan",)
    text = readable_text(rows[0], None, images)
    assert "scan" not in text and "label: 0" in text and "words: " in text
    rows["words"] = -1
    rows["words"][0, 1, :5] = list(b"<tea>")
    rows["words"][0, 4, :3] = list(b"cup")
    assert "words: <tea> | cup" in readable_text(rows[0], None, images, {"words": open_tokenizer("bytes")})
    shown = {"row_id": 7, "group": "g", "reason": "kept", "margin": 0.5, "duplicate_of": None, "text": text}
    plain = readable_row(shown)  # as an earlier version has kept it
    assert "<img" not in plain and "margin 0.5" in plain
    drawn = readable_row({**shown, "scores": {"loss": 0.25}, "pictures": {"a<b": picture(rows["scan"][0])}})
    assert '<img alt="a&lt;b of row 7"' in drawn and "data:image/png" in drawn and "loss 0.25" in drawn
