import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.search.corpus.documents import Document
from shoal.search.corpus.packing import pack_documents
from shoal.trainables.tokenizer import Bytes

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, max_size=20)


@settings(deadline=None)
@given(contents=TEXTS, length=st.integers(1, 40))
def test_packing_gives_back_every_token_but_the_tail(contents, length):
    documents = [Document(text.encode().ljust(16, b"\0"), text.encode()) for text in contents]
    packed = pack_documents(documents, Bytes(), length)
    stream = [token for document in documents for token in [*document.content, 256]]
    whole = len(stream) // length
    expected = [tuple(stream[row * length : (row + 1) * length]) for row in range(whole)]
    assert packed.rows.dtype == np.uint16 and packed.rows.shape == (whole, length)
    assert sorted(map(tuple, packed.rows.tolist())) == sorted(expected)
    assert (np.diff(packed.ids) > 0).all()
    assert len(stream) - packed.rows.size < length


def test_packing_by_hand():
    documents = [Document(b"a" * 16, b"abc"), Document(b"b" * 16, b"de")]
    packed = pack_documents(documents, Bytes(), 3)  # abc | end d e | (end)
    assert {tuple(row) for row in packed.rows.tolist()} == {(97, 98, 99), (256, 100, 101)}
    # the second row begins at token 3 of the first document, wherever that document lies
    alone = pack_documents(documents[:1], Bytes(), 1)
    of_end = alone.ids[alone.rows[:, 0] == 256]
    assert of_end[0] == packed.ids[packed.rows[:, 0] == 256][0]
    hashed = hashlib.blake2b(b"a" * 16 + b"\3\0\0\0\0\0\0\0", digest_size=8).digest()
    assert of_end[0] == int.from_bytes(hashed, "little") // 2
