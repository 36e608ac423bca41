import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.trainables.tokenizer import TOKENIZERS, Bytes

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TEXT)
def test_decode_gives_back_what_encode_took(name, text):
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(text)
    assert tokenizer.name == name
    assert ids.dtype == np.uint16
    assert tokenizer.decode(ids) == text
    assert tokenizer.end not in ids
    assert ids.max(initial=0) < tokenizer.vocabulary <= 65536


def test_bytes_by_hand():
    tokenizer = Bytes()
    assert tokenizer.encode("aé\n").tolist() == [97, 0xC3, 0xA9, 10]
    assert (tokenizer.vocabulary, tokenizer.end) == (257, 256)


def test_decode_drops_ends_and_marks_a_cut_character():
    assert Bytes().decode([97, 256, 98, 0xC3]) == "ab\ufffd"
    assert Bytes().decode([[97, 98], [99, 256]]) == "abc"


@pytest.mark.parametrize("wrong", [257, -1, 65535])
def test_decode_refuses_ids_outside_the_vocabulary(wrong):
    with pytest.raises(ValueError, match=rf"\[0, 257\), got {wrong}"):
        Bytes().decode([97, wrong])
