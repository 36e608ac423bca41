import json
import math

import pyarrow as pa
import pytest

from shoal.cluster.storage import Store
from shoal.policies.schedule import Setting
from shoal.search.errors import InputError
from shoal.search.records.lineage import Event, Segment, ancestry, read_lineage, roots, schedule_of, stays
from shoal.search.records.tables import LINEAGE_SCHEMA


def start(member, value):
    return Event("start", 0, 0, member, None, None, None, None, {"h": value})


def copy(round_, member, parent, value):
    """Ten steps a round; the scores do not matter for who came from whom."""
    return Event("copy", round_, 10 * round_, member, 0.1, parent, 0.9, {"h": 0}, {"h": value})


def slots(path):
    return [(each.member, each.from_step, each.to_step) for each in path]


# round   1      2      3      4
# 0    ---a------------b------------    copies 1 after round 3
# 1    ---------b-------------------    copies 2 after round 2
# 2    -----------------------------    never copies
# 3    --c(from 0)-------------d----    copies 0 after round 1, and 0 again after round 4
CHAIN = [
    start(0, 1),
    start(1, 2),
    start(2, 3),
    start(3, 4),
    copy(1, 3, 0, 5),
    copy(2, 1, 2, 6),
    copy(3, 0, 1, 7),
    copy(4, 3, 0, 8),
]


def test_a_chain_of_copies_is_walked_back_to_its_root():
    assert ancestry(CHAIN, 3) == [
        Segment(0, 20, 2, {"h": 3}, 0, 2),
        Segment(20, 30, 1, {"h": 6}, 2, 3),
        Segment(30, 40, 0, {"h": 7}, 3, 4),
        Segment(40, None, 3, {"h": 8}, 4, None),
    ]


def test_a_slot_that_is_copied_from_and_copies_later_gives_what_it_had_at_the_time():
    # member 3 copied 0 after round 1, before 0 itself took the weights of 1
    assert slots(ancestry(CHAIN, 3, round=4)) == [(0, 0, 10), (3, 10, None)]
    assert slots(ancestry(CHAIN, 0)) == [(2, 0, 20), (1, 20, 30), (0, 30, None)]


def test_a_round_scores_the_weights_from_before_its_own_decision():
    assert slots(ancestry(CHAIN, 1, round=2)) == [(1, 0, None)]
    assert slots(ancestry(CHAIN, 1, round=3)) == [(2, 0, 20), (1, 20, None)]
    assert ancestry(CHAIN, 1, round=2)[-1].to_round == 2
    assert slots(ancestry(CHAIN, 1, round=0)) == [(1, 0, None)]


def test_a_member_that_copied_twice_keeps_only_the_last_copy():
    events = [start(0, 1), start(1, 2), start(2, 3), copy(1, 2, 0, 4), copy(3, 2, 1, 5)]
    assert slots(ancestry(events, 2)) == [(1, 0, 30), (2, 30, None)]
    assert slots(ancestry(events, 2, round=3)) == [(0, 0, 10), (2, 10, None)]


def test_a_pair_that_copies_to_and_fro_goes_through_the_slot_twice():
    events = [start(0, 1), start(1, 2), copy(1, 1, 0, 3), copy(2, 0, 1, 4), copy(3, 1, 0, 5)]
    assert slots(ancestry(events, 1)) == [(0, 0, 10), (1, 10, 20), (0, 20, 30), (1, 30, None)]


def test_without_copies_every_member_is_its_own_root():
    events = [start(0, 1), start(1, 2)]
    assert ancestry(events, 1) == [Segment(0, None, 1, {"h": 2}, 0, None)]
    assert stays(events) == {0: ancestry(events, 0), 1: ancestry(events, 1)}
    assert roots(events) == {(0, 0): 0, (1, 0): 1}


def test_the_order_of_the_events_does_not_matter():
    assert ancestry(CHAIN[::-1], 3) == ancestry(CHAIN, 3)
    assert stays(CHAIN[::-1]) == stays(CHAIN)


def test_stays_tell_what_passed_through_each_slot():
    assert {member: slots(stay) for member, stay in stays(CHAIN).items()} == {
        0: [(0, 0, 30), (0, 30, None)],
        1: [(1, 0, 20), (1, 20, None)],
        2: [(2, 0, None)],
        3: [(3, 0, 10), (3, 10, 40), (3, 40, None)],
    }


def test_roots_agree_with_the_ancestry():
    found = roots(CHAIN)
    assert found[3, 1] == 0 and found[0, 3] == found[1, 2] == found[3, 4] == 2
    for (member, from_round), root in found.items():
        assert ancestry(CHAIN, member, round=from_round + 1)[0].member == root


def test_a_parent_that_copies_in_the_same_round_gives_what_it_had():
    # a tournament of three in a row: 0 copies 1 while 1 copies 2
    events = [start(0, 1), start(1, 2), start(2, 3), copy(1, 0, 1, 4), copy(1, 1, 2, 5)]
    assert roots(events) == roots(events[::-1])
    assert roots(events)[0, 1] == 1 and roots(events)[1, 1] == 2
    assert slots(ancestry(events, 0)) == [(1, 0, 10), (0, 10, None)]


def test_a_schedule_joins_equal_settings():
    path = [
        Segment(0, 10, 4, {"h": 1}, 0, 1),
        Segment(10, 20, 2, {"h": 1}, 1, 2),
        Segment(20, None, 5, {"h": 3}, 2, None),
    ]
    assert schedule_of(path) == [Setting(0, {"h": 1}), Setting(20, {"h": 3})]
    assert schedule_of(ancestry([start(0, 1)], 0)) == [Setting(0, {"h": 1})]


def row(event):
    return event._asdict() | {
        "before": None if event.before is None else json.dumps(event.before),
        "after": json.dumps(event.after),
    }


def written(store, events):
    """One part a round, as a run writes them."""
    for round_ in sorted({event.round for event in events}):
        rows = [row(event) for event in events if event.round == round_]
        table = pa.Table.from_pylist(rows, LINEAGE_SCHEMA)
        store.write_table(f"lineage.parquet/part-{round_:06d}.parquet", table)


def test_read_lineage_gives_back_the_events(tmp_path):
    store = Store(str(tmp_path))
    written(store, CHAIN)
    assert read_lineage(store) == CHAIN


def test_a_failed_member_has_a_nan_score(tmp_path):
    store = Store(str(tmp_path))
    written(store, [start(0, 1), start(1, 2), copy(1, 1, 0, 3)._replace(score=math.nan)])
    assert math.isnan(read_lineage(store)[-1].score)


def test_a_missing_lineage_is_the_users_to_mend(tmp_path):
    with pytest.raises(InputError, match=r"must hold lineage\.parquet .* finished a round"):
        read_lineage(Store(str(tmp_path)))


def test_a_lineage_without_its_starts_is_refused(tmp_path):
    store = Store(str(tmp_path))
    written(store, [start(0, 1), copy(1, 2, 0, 3), copy(2, 0, 1, 3)])
    with pytest.raises(InputError, match=r"none of 1, 2: a part of it is missing"):
        read_lineage(store)
