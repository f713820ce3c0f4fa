"""`base`: embeddings and an MLP, no attention (HCCM, Eq. 1-4)."""

from hccm_tf.models.model import Model


class Base(Model):
    """The whole model is the ranker; its histories are mean-pooled."""

    name = "base"
    has_attention = False
