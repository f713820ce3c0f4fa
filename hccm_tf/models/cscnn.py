"""`cscnn`: a whole CNN on the candidate's pixels, with category attention (CSCNN)."""

import dataclasses
import functools

import keras
from keras import ops

from hccm_tf.errors import errors_begin_with
from hccm_tf.layers import CategoryPrior, ChannelAttention, SpatialAttention
from hccm_tf.models.attended_backbone import attended_backbone, last_layers
from hccm_tf.models.backbones import load_backbone
from hccm_tf.models.image_model import ImageModel
from hccm_tf.models.non_visual import id_dropout
from hccm_tf.models.options import ImageOptions
from hccm_tf.options import option

# Those whose blocks' layers are named so.
BACKBONES = ("MobileNetV3Large", "MobileNetV3Small")
BLOCKS = r"(expanded_conv(?:_\d+)?)_"
PRIOR_SHAPE = (6, 6)
# Blocks of MobileNetV3 have as few as 16 channels.
REDUCTION_RATIO = 4
MOMENTUM = 0.9


class CSCNN(ImageModel):
    """Pixels → backbone with an attention behind each block → vector.

    `cnn_attention` says what stands behind each block of the backbone:

    - `"category"`: channel attention with a prior, then spatial attention with a prior
      map, both embeddings of the category, each block's its own (CSCNN, KDD '20);
    - `"cbam"`: the same without priors;
    - `"se"`: channel attention by average pooling;
    - `"none"`: nothing.

    Our choice: the priors have 6 × 6 values, the channel attention's hidden layer has
    a quarter of the channels, global average pooling and a dense layer follow the
    backbone, and normalisation has momentum 0.9, as the backbones' 0.99 and 0.999
    leave the statistics stale. There is no explanation, as each block has an attention.
    """

    name = "cscnn"
    takes_pixels = tells_category = True
    sides = ("candidate",)

    @dataclasses.dataclass(frozen=True)
    class Options(ImageOptions):
        """The whole CNN on the candidate's pixels."""

        image_size: int = option(
            64, "The height and width in pixels to which an image is resized.", lower=32
        )
        cnn_backbone: str = option(
            "MobileNetV3Small",
            "The CNN of keras.applications: {choices}.",
            BACKBONES,
        )
        cnn_layer: str | None = option(
            None, "The CNN's last layer to keep; by default the backbone's own choice."
        )
        cnn_attention: str = option(
            "category",
            "The attention behind each block of the CNN: {choices}.",
            ("none", "se", "cbam", "category"),
        )
        cnn_weights: str = option(
            "imagenet",
            "What the CNN begins with: imagenet, random, or the path of a weights file "
            "of the backbone without its top; a warm start has the run's CNN.",
        )
        pretrain_epochs: int = option(
            0,
            "The passes over the catalogue's images in which the CNN learns their "
            "categories first; not for a warm start.",
            lower=0,
        )

    @property
    def uses_category(self):
        return self.options.cnn_attention == "category"

    def image_encoder(self, layers, explain=False):
        del explain
        pixels = keras.Input(self.images.shape, dtype="uint8", name="image_map")
        category = keras.Input((), dtype="int32", name="image_category")
        # Padding has category 0. It is left out, so that statistics are of images only;
        # of a batch without any image all of it is taken, as convolutions need one.
        mask = ops.not_equal(category, 0)
        rows = ops.nonzero(ops.logical_or(mask, ops.logical_not(ops.any(mask))))[0]
        known = ops.take(category, rows, axis=0)
        if self.uses_category:
            dropout = id_dropout(
                self, self.schema["category"], layers, "image_category_dropout"
            )
            known = dropout(known)
        cnn = layers.get("cnn", self._cnn)
        maps = cnn([ops.cast(ops.take(pixels, rows, axis=0), "float32"), known])
        make = functools.partial(keras.layers.Dense, self.image_dim)
        projection = layers.get("projection", make)
        images = projection(keras.layers.GlobalAveragePooling2D()(maps))
        place = ops.maximum(ops.cumsum(ops.cast(mask, "int32")) - 1, 0)
        there = ops.cast(mask, images.dtype)[:, None]
        return keras.Model(
            {"image_map": pixels, "image_category": category},
            ops.take(images, place, axis=0) * there,
            name="image_encoder",
        )

    def load_backbone(self, weights):
        """The backbone that the options describe, see `load_backbone`."""
        with errors_begin_with("cnn_"):
            return load_backbone(
                self.options.cnn_backbone,
                weights,
                self.images.shape[0],
                self.options.cnn_layer,
            )

    def _cnn(self, name):
        """`keras.Model` from `[pixels, category]` to feature maps, random weights.

        Inference needs a training step or pretrained weights before: with the
        statistics that its normalisation starts with, it gives zeros.
        """
        backbone = self.load_backbone("random")
        attend = {
            "none": lambda name, x, category: x,
            "se": _squeeze_and_excite,
            "cbam": _cbam,
            "category": functools.partial(_category_attention, self.schema),
        }[self.options.cnn_attention]
        cnn = attended_backbone(backbone, last_layers(backbone, BLOCKS), attend)
        for layer in cnn.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = MOMENTUM
        return keras.Model(cnn.inputs, cnn.outputs[0], name=name)


def _squeeze_and_excite(name, x, category):
    del category
    attention = ChannelAttention(
        REDUCTION_RATIO, pooling="avg", name=f"{name}_channel_attention"
    )
    return attention(x)


def _cbam(name, x, category, channel_prior=None, spatial_prior=None):
    del category
    channels = ChannelAttention(REDUCTION_RATIO, name=f"{name}_channel_attention")
    positions = SpatialAttention(name=f"{name}_spatial_attention")
    return positions(channels(x, prior=channel_prior), prior_map=spatial_prior)


def _category_attention(schema, name, x, category):
    rows = schema.num_rows("category")
    channel, spatial = (
        CategoryPrior(rows, PRIOR_SHAPE, name=f"{name}_{kind}_prior")(category)
        for kind in ("channel", "spatial")
    )
    spatial = ops.reshape(spatial, (-1, *PRIOR_SHAPE, 1))
    return _cbam(name, x, category, channel, spatial)
