"""Where pool, target and chosen rows lie, what a small target needs, and how often Ray is started for them."""

import contextlib
import os
from collections.abc import Iterator

import pytest
import ray
import yaml

from shoal.search.corpus import stages
from shoal.search.errors import InputError
from shoal.search.load import checked_run, dump
from shoal.search.runs.select import with_chosen_rows
from shoal.search.selection.select import select_corpus
from tests.search.selection.test_select import dsir, places, run_of, write_group

__all__ = ["places"]  # a fixture


@pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{0}/../corpus", "file://{0}"])
@pytest.mark.parametrize(("end", "name"), [("", "data.corpus"), ("-target", "the target's corpus")])
def test_chosen_rows_never_take_the_place_of_others(tmp_path, places, spelling, end, name) -> None:
    place = spelling.format(f"{tmp_path}/corpus").replace("corpus", f"corpus{end}")
    with pytest.raises(InputError, match=f"selection.corpus: must be another place than {name}"):
        run_of(tmp_path, places, dsir(places, corpus=place))


def test_a_place_that_cannot_be_written_is_named_before_anything_is_built(tmp_path, places) -> None:
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), "none://there"):
        with pytest.raises(InputError, match=r"selection.corpus must be a directory or URI that"):
            select_corpus(run_of(tmp_path, places, dsir(places, corpus=place)), print)
    assert not os.path.exists(tmp_path / "corpus")


def test_a_target_of_one_document_needs_no_rows_that_are_held_out(tmp_path, places) -> None:
    small = write_group(tmp_path / "small", "sea", 1, 9)
    chosen = select_corpus(run_of(tmp_path, places, dsir({"like": small}), validation=0.1, test=0.1), print)
    groups = chosen.record["groups"]
    assert groups["sea"]["kept"] / groups["sea"]["rows"] > groups["wood"]["kept"] / groups["wood"]["rows"]


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ({"score": {"kind": "loss", "groups": {"sea": 0.5, "wood": 0.5}}}, "score.groups: wood is no group"),
        ({"data.proportions": {"sea": 0.0, "wood": 1.0}}, "data.proportions: the other groups have no share"),
    ],
)
def test_a_group_that_the_file_needs_and_of_which_no_row_was_chosen(tmp_path, places, named, wanted) -> None:
    values = yaml.safe_load(dump(run_of(tmp_path, places, dsir(places, share=0.05))))
    values["data"] |= {"proportions": named.get("data.proportions")}
    run = checked_run(values | {"score": named.get("score", "loss")}, "run.yaml")
    with pytest.raises(InputError, match=rf"no row of wood was chosen, but .*\({wanted}"):
        with_chosen_rows(run, print, renew=True)


def test_stages_of_one_command_share_a_connection(monkeypatch) -> None:
    told: list[str] = []

    @contextlib.contextmanager
    def session() -> Iterator[None]:
        told.append("opened")
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        yield
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        told.append("closed")

    def two_stages() -> None:
        for _ in range(2):
            with stages.connected():
                told.append("stage")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(stages, "session", session)
    two_stages()
    assert told == ["opened", "stage", "closed"] * 2
    told.clear()
    with stages.one_connection():
        with stages.one_connection():
            two_stages()
        told.append("later")
    assert told == ["opened", "stage", "stage", "later", "closed"]


@pytest.mark.ray
def test_a_selection_on_an_embedded_ray_starts_it_once(tmp_path, places, monkeypatch) -> None:
    opened, real = [], stages.session

    def session() -> contextlib.AbstractContextManager[str]:
        opened.append(1)
        return real()

    monkeypatch.setattr(stages, "session", session)
    there = select_corpus(run_of(tmp_path / "there", places, dsir(places), builder="ray"), print)
    assert len(opened) == 1 and not ray.is_initialized()
    here = select_corpus(run_of(tmp_path / "here", places, dsir(places)), print)
    assert there.record["groups"] == here.record["groups"] and there.record["kl"] == here.record["kl"]
