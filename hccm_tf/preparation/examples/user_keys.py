"""The key of each user of a shard: no two users have the same."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.data import ids


def tell_apart(table):
    """Gives users of one key, who are in the same shard, keys of their own.

    The most frequent one keeps it.

    Args:
        table: Arrow table of a shard, with `user_id` and `user_key`.

    Returns:
        The table, with another column `user_key` where keys were shared.
    """
    if pa.types.is_integer(table["user_id"].type):
        return table
    users = table["user_id"].combine_chunks().dictionary_encode()
    keys = table["user_key"].to_numpy()
    names, codes = users.dictionary, users.indices.to_numpy()
    if len(names) == pc.count_distinct(table["user_key"]).as_py():
        return table
    _, _, collisions = ids.distinct_keys(names, np.bincount(codes))
    of_names = keys[np.unique(codes, return_index=True)[1]]
    others = [name for name, _ in collisions]
    places = pc.index_in(pa.array(others), names).to_numpy()
    of_names[places] = [_other_key(name) for name in others]
    place = table.column_names.index("user_key")
    return table.set_column(place, "user_key", pa.array(of_names[codes]))


def _other_key(name):
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
