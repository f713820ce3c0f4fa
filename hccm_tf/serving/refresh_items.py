"""What becomes of a version's table of items when the catalogue changes."""

import numpy as np
import pyarrow as pa

from hccm_tf.data import ids
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.items import check_item_ids
from hccm_tf.serving.exported_version import changed_items, chunks
from hccm_tf.serving.items import ITEM_KEYS, ITEM_VALUES, item_keys


def refresh_items(version, columns, remove_missing):
    """Compares a catalogue with the table of items.

    Items of the catalogue are as it has them now; others stay, because users' histories
    still show them.

    Args:
        version: `Version` with a table of items.
        columns: name → Arrow array, `item_columns` of the catalogue.
        remove_missing: whether items that the catalogue does not have are dropped.

    Returns:
        `(changed, counts)`: what `Version.write` takes, `{}` if the table stays the
        same; and what became of the items, str.

    Raises:
        InputError: if an id is missing or there twice, or there is none.
    """
    check_item_ids(columns["item_id"])
    keys, order, checks = item_keys(columns["item_id"].to_numpy(False))
    if not len(keys):
        raise InputError("items: none; the catalogue has no row")
    columns = {name: column.take(pa.array(order)) for name, column in columns.items()}
    values = _encoded(version, columns)
    old_keys = version.variable(ITEM_KEYS)
    place = ids.find(old_keys, keys).numpy()
    is_old = place >= 0
    other = np.zeros(is_old.sum(), bool)
    for name, column in values.items():
        before = version.variable(ITEM_VALUES + name)[1:][place[is_old]]
        other |= before != column[is_old]
    missing = np.ones(len(old_keys), bool)
    missing[place[is_old]] = False
    removed = missing if remove_missing else np.zeros(len(old_keys), bool)
    counts = (
        f"{np.count_nonzero(~is_old)} items added, {np.count_nonzero(other)} changed, "
        f"{np.count_nonzero(removed)} removed"
    )
    if is_old.all() and not other.any() and not removed.any():
        return {}, counts
    kept = missing & ~removed
    return changed_items(old_keys, kept, keys, checks, values), counts


def _encoded(version, columns):
    """The columns but for the id as the table has them, name → array."""
    found = [version.encode_items(chunk) for chunk in chunks(columns)]
    names = set(found[0]) - {"item_id"}
    return {name: np.concatenate([part[name] for part in found]) for name in names}
