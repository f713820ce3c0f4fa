"""`din`: DIN attention over the item history (Zhou et al., KDD '18), no images."""

from hccm_tf.models.model import Model
from hccm_tf.models.options import DINOptions


class DIN(Model):
    """The whole model is the ranker."""

    name = "din"
    Options = DINOptions
