"""The images of a catalogue by their names, of which each has a key of its own."""

import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.data import ids


def distinct_images(images):
    """The names of a catalogue's images.

    Args:
        images: Arrow column, a name for each item; empty or null for none.

    Returns:
        `(names, left_out, warnings)`: Arrow array of the distinct names, in the
        catalogue's order; those that share their key with an image of more items, and
        are to be no image; and what to say of them, list of str.
    """
    images = images.cast(pa.string()).drop_null()
    counts = pc.value_counts(images.filter(pc.not_equal(images, "")))
    names, counts = counts.flatten()
    _, _, collisions = ids.distinct_keys(names, counts)
    left_out = pa.array([name for name, _ in collisions], pa.string())
    names = names.filter(pc.invert(pc.is_in(names, left_out)))
    return names, left_out, ids.describe_collisions("images", collisions, "no image")
