"""A model of a user's own with an option of its own, outside of the package."""

import dataclasses

import keras
from keras import ops

from hccm_tf.models.base import Base
from hccm_tf.models.options import NetworkOptions
from hccm_tf.options import option


class MyModel(Base):
    """`base`, whose answer is raised to a power."""

    name = "my_model"

    @dataclasses.dataclass(frozen=True)
    class Options(NetworkOptions):
        """My answer."""

        power: float = option(1.0, "The power of the answer.", lower=0.1)

    def ranker(self, layers, many_candidates=False, explain=False):
        base = super().ranker(layers, many_candidates, explain)
        ctr = ops.power(base.output, self.options.power)
        return keras.Model(base.input, ctr, name=self.name)
