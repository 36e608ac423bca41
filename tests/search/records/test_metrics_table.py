"""The table of metrics: what a member's row has by group goes into columns of their own, and comes back."""

from shoal.cluster.storage import Store
from shoal.search.messages import Row
from shoal.search.records.tables import METRICS, read_table_rows, row_of, write_metrics


def test_losses_their_errors_and_measures_come_back_by_group(tmp_path) -> None:
    store = Store(str(tmp_path))
    rows = [
        Row(0, round=1, losses={"code": 2.0}, loss_errors={"code": 0.5}, measures={"accuracy_code": 0.25}),
        Row(1, round=1, losses={"code": 3.0}),
    ]
    write_metrics(store, 1, rows)
    first, second = read_table_rows(store, METRICS)
    assert (first["loss_code"], first["error_code"], first["accuracy_code"]) == (2.0, 0.5, 0.25)
    assert second["error_code"] is None
    found = row_of(first)
    assert (found.losses, found.loss_errors, found.measures) == (
        {"code": 2.0},
        {"code": 0.5},
        {"accuracy_code": 0.25},
    )
    assert row_of(second).loss_errors == {} and row_of(second).losses == {"code": 3.0}
