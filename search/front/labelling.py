"""Give the rows of bags labels, from the bags' shares and the rows' neighbours: `shoal label`."""

import os
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shoal.policies.arrays import Vector
from shoal.policies.bag_labels import BagLabels
from shoal.search.errors import InputError, nearest

CHANCE = "chance"  # column of the chance of label 1
BAG_NUMBER, BAG_SHARES = (
    "bag_number",
    "bag_shares",
)  # columns of the bag and its shares, as objectives take them
LIMIT_OF_GAP = 0.5  # rows by which a bag's chances may miss its count before a line says so
SETTLED = 0.01  # a last pass that moves a chance by more has not settled


class BagColumns(NamedTuple):
    """Names of the table's columns."""

    bag: str = "bag"  # a number, or a name; null for rows that are in no bag
    share: str = "shares"  # the share of label 1 in the bag, or those of labels 0 and 1
    label: str = "label"  # null, or not there, for rows in bags
    inputs: tuple[str, ...] = ()  # by which rows are alike; all other columns of numbers if none is named


class Bags(NamedTuple):
    """The rows that are in bags, as the labelling takes them."""

    rows: NDArray[np.int64]  # their places in the table
    bag: NDArray[np.int64]  # (rows,)
    counts: Vector  # (bags,)
    names: list[str]  # each bag as the table calls it
    features: Vector  # (rows, features)


def label_bags(source: str, target: str, columns: BagColumns, settings: BagLabels) -> list[str]:
    """Write the table again with a label for each row in a bag, and its chance; return what is to be said.

    Rows of no bag keep their label. Raises InputError for a table that lacks what is asked for.
    """
    table = read_table(source)
    bags = bags_of(table, columns)
    known = old_labels(table, columns, bags.rows)
    found = settings.beliefs(bags.bag, bags.counts, settings.edges(bags.features))
    chance = known.astype(np.float64)
    chance[bags.rows] = found.chance
    table = labelled_table(table, columns.label, known, chance, bags)
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    pq.write_table(table, target)
    said = [
        f"{target}: {len(bags.rows)} rows of {len(bags.names)} bags are labelled, after {found.passes} passes; "
        f"{len(known) - len(bags.rows)} rows of no bag kept their label"
    ]
    worst = int(np.abs(found.gaps).argmax())
    if abs(found.gaps[worst]) > LIMIT_OF_GAP or found.change > SETTLED:
        said.append(
            f"note: the chances are not sure: those of bag {bags.names[worst]} sum to its count "
            f"{found.gaps[worst]:+.2g}, and the last pass moved one by {found.change:.2g}; a lower "
            f"--edge-weight settles better"
        )
    return said


def labelled_table(
    table: pa.Table, label: str, known: NDArray[np.int64], chance: Vector, bags: Bags
) -> pa.Table:
    """Return the table with labels, chances, and bags and shares as a classifier takes them: no nulls.

    A row of no bag has the bag -1, and its own label as shares.
    """
    number, share = np.full(len(known), -1), known.astype(np.float64)
    number[bags.rows] = bags.bag
    share[bags.rows] = (bags.counts / np.bincount(bags.bag))[bags.bag]
    both = np.stack([1 - share, share], axis=1).astype(np.float32)
    new = {
        label: pa.array(np.where(number < 0, known, chance > 0.5).astype(np.int64)),
        CHANCE: pa.array(chance.astype(np.float32)),
        BAG_NUMBER: pa.array(number.astype(np.int64)),
        BAG_SHARES: pa.FixedSizeListArray.from_arrays(pa.array(both.ravel()), 2),
    }
    table = table.drop_columns([name for name in new if name in table.column_names])
    for name, values in new.items():
        table = table.append_column(name, values)
    return table


def read_table(source: str) -> pa.Table:
    try:
        return pq.read_table(source)
    except (OSError, pa.ArrowInvalid) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"{source}: must be a Parquet file, but cannot be read as one: {said}") from error


def bags_of(table: pa.Table, columns: BagColumns) -> Bags:
    for name in (columns.bag, columns.share, *columns.inputs):
        if name not in table.column_names:
            raise InputError(f"column {name}: is not in the table{nearest(name, table.column_names)}")
    bag = table[columns.bag].combine_chunks()
    rows = np.flatnonzero(pc.is_valid(bag).to_numpy(zero_copy_only=False))
    if not len(rows):
        raise InputError(f"column {columns.bag}: must name the bags of some rows, but is null in all")
    inside = table.take(pa.array(rows))
    encoded = inside[columns.bag].combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    names = [str(each) for each in encoded.dictionary.to_pylist()]
    share = shares_of_one(inside, columns.share)
    mean = np.bincount(numbers, share) / np.bincount(numbers)
    off = np.abs(share - mean[numbers]) > 1e-6
    if off.any():
        odd = names[numbers[off.argmax()]]
        raise InputError(
            f"column {columns.share}: all rows of a bag must have one share, but bag {odd} has others"
        )
    return Bags(rows, numbers, mean * np.bincount(numbers), names, features_in_bags(inside, columns))


def shares_of_one(table: pa.Table, name: str) -> Vector:
    """Return the share of label 1 in each row's bag, `(rows,)`, from that share or those of both labels."""
    values = column_of_numbers(table, name)
    if values.shape[1] > 2:
        raise InputError(
            f"column {name}: bags are labelled with two labels, but it has shares of {values.shape[1]}; train "
            f"with `objective: label_proportions` in place of this"
        )
    share = values[:, -1]
    odd = ~((share >= 0) & (share <= 1))
    if odd.any():
        raise InputError(f"column {name}: a share must be from 0 to 1, but one is {share[odd.argmax()]:.6g}")
    if values.shape[1] == 2 and np.abs(values.sum(axis=1) - 1).max() > 1e-3:
        raise InputError(f"column {name}: the two shares of a bag must sum to 1, but some do not")
    return share


def features_in_bags(table: pa.Table, columns: BagColumns) -> Vector:
    roles = {columns.bag, columns.share, columns.label, CHANCE, BAG_NUMBER, BAG_SHARES}
    given = columns.inputs or tuple(
        field.name for field in table.schema if field.name not in roles and holds_numbers(field.type)
    )
    if not given:
        raise InputError("--input: must name a column of numbers by which rows are alike, since there is none")
    found = np.concatenate([column_of_numbers(table, name) for name in given], axis=1)
    if not np.isfinite(found).all():
        raise InputError(
            f"columns {', '.join(given)}: numbers of rows in bags must be finite, but some are not"
        )
    return found


def holds_numbers(kind: pa.DataType) -> bool:
    """Say whether a column holds a number in each row, or a list of numbers."""
    listed = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while any(is_one(kind) for is_one in listed):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def column_of_numbers(table: pa.Table, name: str) -> Vector:
    """Return a column of numbers, or of lists of one length, as `(rows, numbers)`; nulls become NaN."""
    if not holds_numbers(table.schema.field(name).type):
        raise InputError(f"column {name}: must hold numbers, got {table.schema.field(name).type}")
    try:
        found = np.array(table[name].to_pylist(), np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"column {name}: must have as many numbers in each row, but has not") from error
    return found.reshape(len(found), -1)


def old_labels(table: pa.Table, columns: BagColumns, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels of rows that are in no bag, 0 for the others; refuses labels that would be lost."""
    outside = np.ones(len(table), bool)
    outside[rows] = False
    if columns.label not in table.column_names:
        if outside.any():
            raise InputError(f"column {columns.label}: rows of no bag need a label, but it is not there")
        return np.zeros(len(table), np.int64)
    column = table[columns.label].combine_chunks()
    there = pc.is_valid(column).to_numpy(zero_copy_only=False)
    if (there & ~outside).any():
        raise InputError(
            f"column {columns.label}: must be null for rows in bags, but {int((there & ~outside).sum())} "
            f"have a label; name another with --label"
        )
    if (outside & ~there).any():
        raise InputError(f"column {columns.label}: rows of no bag need a label, but some have none")
    try:
        known = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        known = np.array([-1])
    if not np.isin(known, (0, 1)).all():
        raise InputError(f"column {columns.label}: must be 0 or 1, but has others")
    return np.array(known, np.int64)  # the column is read-only
