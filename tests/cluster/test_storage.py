import contextlib
import errno
import math
import os
import pickle
import resource
import shutil
import threading

import numpy as np
import pyarrow as pa
import pytest

from shoal.cluster import checkpoints, nests
from shoal.cluster.lease import LeaseLost, StandingStore, take
from shoal.cluster.storage import CannotWrite, Store


def test_what_is_written_is_read_and_no_temporary_is_left(tmp_path) -> None:
    store = Store(str(tmp_path))
    store.write("a/b.txt", "hello")
    store.write("a/b.txt", "again")
    assert store.read("a/b.txt") == b"again"
    assert os.listdir(tmp_path / "a") == ["b.txt"]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    store = Store(str(tmp_path))
    store.write("state", "whole")

    class Dies:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def move(self, *_):
            raise KeyboardInterrupt

    store.filesystem = Dies(store.filesystem)
    with pytest.raises(KeyboardInterrupt):
        store.write("state", "half")
    assert Store(str(tmp_path)).read("state") == b"whole"


@pytest.mark.parametrize("look", [Store.names, Store.folders, Store.delete])
def test_a_folder_that_others_make_and_delete_meanwhile_is_there_or_not(tmp_path, look) -> None:
    folder, stop = tmp_path / "checkpoints", threading.Event()

    def change() -> None:
        while not stop.is_set():
            folder.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()

    other = threading.Thread(target=change)
    other.start()
    try:
        assert {str(look(Store(str(tmp_path)), "checkpoints")) for _ in range(5000)} <= {"[]", "None"}
    finally:
        stop.set()
        other.join()


def test_a_uri_and_a_path_are_the_same_place(tmp_path) -> None:
    Store(f"file://{tmp_path}").write("x", "1")
    assert Store(str(tmp_path)).read("x") == b"1"


def test_parts_are_read_in_order_and_missing_columns_are_null(tmp_path) -> None:
    store = Store(str(tmp_path))
    store.write_table("t/part-000002.parquet", pa.table({"x": [2], "y": [0.5]}))
    store.write_table("t/part-000001.parquet", pa.table({"x": [1]}))
    store.write("t/.part-000003.parquet.tmp", "half")
    assert store.read_table("t").to_pydict() == {"x": [1, 2], "y": [None, 0.5]}


def test_a_nest_comes_back_equal() -> None:
    given = {
        "weights": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3.5)},
        "list": [1, "two", None, True, {"deep": np.zeros((0, 4), dtype=np.uint16)}],
        "number": np.float64(0.25),
        "nan": math.nan,
        "empty": {},
    }
    got = nests.loads(nests.dumps(given))
    assert got["list"][:4] == [1, "two", None, True]
    assert got["number"] == 0.25 and math.isnan(got["nan"]) and got["empty"] == {}
    for name in "ab":
        assert got["weights"][name].dtype == given["weights"][name].dtype
        assert np.array_equal(got["weights"][name], given["weights"][name])
        assert got["weights"][name].shape == given["weights"][name].shape
    assert got["list"][4]["deep"].shape == (0, 4)


def test_a_transposed_array_comes_back_in_its_own_order() -> None:
    array = np.arange(6).reshape(2, 3).T
    assert np.array_equal(nests.loads(nests.dumps({"x": array}))["x"], array)


def test_a_checkpoint_counts_only_when_whole(tmp_path) -> None:
    store = Store(str(tmp_path))
    assert checkpoints.latest(store, range(2)) is None
    for round_ in (1, 2):
        for member in range(2):
            checkpoints.save_member(store, round_, member, {"round": round_, "member": member})
        checkpoints.save_decisions(store, round_, {"round": round_}, [round_] * 2)
    checkpoints.save_member(store, 3, 0, {})
    checkpoints.save_decisions(store, 3, {}, [3, 3])
    assert checkpoints.latest(store, range(2)) == 2  # member 1 of round 3 is missing
    assert checkpoints.load_member(store, 2, 1) == {"round": 2, "member": 1}
    checkpoints.prune(store, 2)
    assert store.names(checkpoints.CHECKPOINT_FOLDER) == ["round-000002", "round-000003"]


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path) -> None:
    store, (soft, hard) = Store(str(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    store.write("whole", b"before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a disk that is nearly full
    try:
        with pytest.raises(CannotWrite, match=f"{tmp_path}/whole cannot be written: File too large") as caught:
            store.write("whole", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["whole"] and store.read("whole") == b"before"
    handed_on = pickle.loads(pickle.dumps(caught.value))  # as by Ray
    assert (str(handed_on), handed_on.errno) == (str(caught.value), errno.EFBIG)
    with pytest.raises(CannotWrite, match=f"{tmp_path}/whole/below cannot be written: File exists"):
        store.write("whole/below", b"")


def test_a_directory_that_was_deleted_is_not_made_anew(tmp_path) -> None:
    Store(str(tmp_path / "run")).write("run.yaml", "name: x")
    worker, driver = StandingStore(str(tmp_path / "run")), take(str(tmp_path / "run"))
    worker.write("checkpoints/round-000001/member-00000.safetensors", b"1")
    shutil.rmtree(tmp_path / "run")
    for store, name in ((worker, "checkpoints/round-000002/member-00000.safetensors"), (driver, "x.json")):
        with pytest.raises(LeaseLost, match="was deleted or moved under the run"):
            store.write(name, b"2")
    assert not driver.held() and os.listdir(tmp_path) == []


def test_a_directory_that_is_being_deleted_is_not_made_anew(tmp_path, monkeypatch) -> None:
    store = StandingStore(str(tmp_path / "run"))
    Store(store.uri).write("run.yaml", "name: x")
    plain = store.exists

    def just_then(name: str = "") -> bool:
        found = plain(name)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)  # between a look and the write
        return found

    monkeypatch.setattr(store, "exists", just_then)
    store.exists()
    with pytest.raises(LeaseLost):
        store.write("checkpoints/round-000002/member-00000.safetensors", b"2")
    assert os.listdir(tmp_path) == []
