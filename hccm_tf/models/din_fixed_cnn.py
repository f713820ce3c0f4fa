"""`din_fixed_cnn`: the two-stage form, pooled maps → projection (HCCM, 3.1.3)."""

import dataclasses
import functools

import keras

from hccm_tf.models.image_model import ImageModel, map_encoder
from hccm_tf.models.options import MapOptions
from hccm_tf.options import option


class DINFixedCNN(ImageModel):
    """No convolution is trained and no category is used; there is no explanation.

    With projection `pca` nothing is: the strict two-stage form.
    """

    name = "din_fixed_cnn"

    @dataclasses.dataclass(frozen=True)
    class Options(MapOptions):
        """The projection of the fixed CNN's pooled maps."""

        projection: str = option(
            "trainable",
            "The projection of the pooled maps: {choices}; pca is fitted to the "
            "catalogue's images and frozen.",
            ("trainable", "pca"),
        )

    def image_encoder(self, layers, explain=False):
        del explain
        # Which keeps the cosines of the pooled maps, if it is as wide.
        make = functools.partial(
            keras.layers.Dense, self.image_dim, kernel_initializer="orthogonal"
        )
        if self.options.projection == "pca":
            make = self._frozen_projection
        dense = layers.get("projection", make)
        return map_encoder(
            self.images,
            lambda maps, category, mask: dense(maps),
            self.options.map_dropout,
            pool=True,
        )

    def _frozen_projection(self, name):
        """A frozen layer of `(x - mean) components^T`."""
        mean, components = self.images.pca or (None, None)
        shape = self.image_dim, self.images.shape[-1]
        if components is None or components.shape != shape:
            raise ValueError(
                f"projection pca needs pca, a mean and components of shape {shape}. "
                f"Received: {getattr(components, 'shape', None)}"
            )
        dense = keras.layers.Dense(len(components), trainable=False, name=name)
        dense.build((None, shape[-1]))
        dense.set_weights([components.T, -components @ mean])
        return dense
