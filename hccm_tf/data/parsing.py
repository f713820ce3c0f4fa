"""What `tf.io.parse_example` reads of the records of a data folder."""

from etils import epy

from hccm_tf.data.feature import HISTORY_IMAGE

with epy.lazy_imports():
    import tensorflow as tf

# What a record has of each candidate beside its features, name → dtype; the second, if
# the log has it.
OF_CANDIDATES = {"label": "int64", "row": "int64", "image": "int64"}
OPTIONAL_OF_CANDIDATES = {"timestamp": "int64", "weight": "float32"}


def candidate_columns(schema):
    """Names of the columns of which a record has a value for each candidate, set."""
    features = (feature.name for feature in schema.scalars if feature.candidate)
    return {*OF_CANDIDATES, *OPTIONAL_OF_CANDIDATES, *features}


def parse_spec(schema, many_candidates=True):
    """The spec with which `tf.io.parse_example` reads the examples.

    Args:
        schema: `hccm_tf.data.schema.Schema`.
        many_candidates: whether a record is a request, whose candidates are ragged
            `[R, (n)]`, and not one impression, `[B]`.

    Returns:
        dict of the columns of the schema and `label`, `row` (number of the row in the
        log), `image` and `history_image` (keys) and `user_key`.
    """

    def one(dtype):
        return tf.io.FixedLenFeature([], tf.as_dtype(dtype))

    def some(dtype):
        return tf.io.RaggedFeature(tf.as_dtype(dtype), row_splits_dtype=tf.int64)

    candidate = some if many_candidates else one
    spec = {name: candidate(dtype) for name, dtype in OF_CANDIDATES.items()}
    spec |= {"user_key": one("int64"), HISTORY_IMAGE: some("int64")}
    for feature in schema.features:
        kind = candidate if feature.candidate else one
        spec[feature.name] = (some if feature.is_sequence else kind)(feature.dtype)
    return spec
