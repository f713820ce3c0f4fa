"""Models of a user's own, as they stand outside the package."""

import dataclasses
import functools

import keras
from keras import ops

from hccm_tf.models import ImageModel, Model
from hccm_tf.models.candidate_dense import CandidateDense
from hccm_tf.models.din import DIN
from hccm_tf.models.image_model import map_encoder
from hccm_tf.models.non_visual import NonVisual
from hccm_tf.models.options import ImageHistoryOptions, NetworkOptions
from hccm_tf.options import option


class MyModel(ImageModel):
    """Maps, pooled and projected by several linear layers one after the other."""

    name = "my_model"

    @dataclasses.dataclass(frozen=True)
    class Options(ImageHistoryOptions):
        """The projection."""

        depth: int = option(1, "The number of linear layers.", lower=1)

    def image_encoder(self, layers, explain=False):
        del explain

        def encode(maps, category, mask):
            del category, mask
            x = keras.layers.GlobalAveragePooling2D()(maps)
            for place in range(self.options.depth):
                x = layers.get(f"linear_{place}", self._linear)(x)
            return x

        return map_encoder(self.images, encode)

    def _linear(self, name):
        return keras.layers.Dense(self.image_dim, name=name)


class Linear(Model):
    """A logistic regression on user and candidate; no history, no images."""

    name = "linear"
    has_attention = False

    @dataclasses.dataclass(frozen=True)
    class Options(NetworkOptions):
        """The answer."""

        temperature: float = option(1.0, "What the logit is divided by.", lower=0.1)

    def ranker(self, layers, many_candidates=False, explain=False):
        del explain
        features = NonVisual(self, layers, many_candidates)
        sides = features.candidate, features.user
        x = [ops.concatenate(side, axis=-1) for side in sides]
        logit = layers.get("logit", functools.partial(CandidateDense, 1))(*x)
        ctr = ops.sigmoid(logit / self.options.temperature)
        return keras.Model(features.inputs, ctr, name=self.name)


class Holder:
    """What another class may stand in."""

    class Inner(DIN):
        """A model with a name that the package has too, unlike the class of it."""
