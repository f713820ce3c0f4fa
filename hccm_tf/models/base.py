"""`base`: embeddings and an MLP, no attention (HCCM, Eq. 1-4)."""

from hccm_tf.models import ranker


def build_ranker(schema, options, layers, **form):
    """The whole model; its histories are mean-pooled."""
    return ranker.build_ranker("base", schema, options, layers, attends=False, **form)
