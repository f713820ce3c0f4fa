"""`din`: DIN attention over the item history (Zhou et al., KDD '18), no images."""

from hccm_tf.models import ranker


def build_ranker(schema, options, layers, **form):
    """The whole model."""
    return ranker.build_ranker("din", schema, options, layers, **form)
