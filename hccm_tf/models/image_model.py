"""What the models with images share.

Such a model consists of two, so that training, serving and export use the same weights:

- `image_encoder`: `image_map [U, h, w, c], image_category [U]` → `[U, D]`;
- `ranker`: features and the candidate's and the history's vectors → click probability.

In training U counts the batch's unique images, and the row numbers `candidate_image
[R, N]` and `history_image [R, T]` pick vectors; where the model sees one side's images
only, there is one of them. In serving the vectors come from a table of all images and
the encoder is not there. Row 0 means no image.
"""

import abc

import keras
from keras import ops

from hccm_tf.errors import InputError
from hccm_tf.layers import PooledShortcut
from hccm_tf.models.ensemble import build_ensemble
from hccm_tf.models.layer_pool import LayerPool
from hccm_tf.models.model import Model
from hccm_tf.models.options import ImageHistoryOptions

# Beside channels that the attention halves at the start.
PRIOR_STDDEV = 0.1


class ImageModel(Model, abc.ABC):
    """Base class of the models with images, feature maps or pixels.

    Attributes:
        tells_category: whether the image encoder may be told the category.
        takes_pixels: whether it takes the images themselves, of an option
            `image_size`, and not their feature maps.
    """

    Options = ImageHistoryOptions
    has_images = True

    @property
    def image_dim(self):
        return self.options.image_embedding_dim

    @property
    def sides(self):
        both = ("candidate", "history")
        chosen = self.options.image_sides
        return both if chosen == "both" else (chosen,)

    @property
    def uses_category(self):
        """Whether what the image encoder gives depends on the category."""
        return self.tells_category

    @abc.abstractmethod
    def image_encoder(self, layers, explain=False):
        """Builds the image encoder.

        Args:
            layers: `LayerPool`.
            explain: whether its output is a dict of `representation` and, where there
                is one, `channel_attention [U, c]`.

        Returns:
            `keras.Model` called `image_encoder`, see above.
        """

    def build(self):
        if self.images is None:
            raise ValueError(
                f"model {self.name} needs feature_map_shape. Received: None"
            )
        if self.uses_category:
            self._require_categories()
        layers = LayerPool()
        encoder = self.image_encoder(layers)
        ranker = build_ensemble(self, layers, many_candidates=True)
        vectors = encoder(encoder.input)
        inputs = {name: ranker.input[name] for name in ranker.input}
        representations = {}
        for side in self.sides:
            rows = inputs[f"{side}_image"]
            del inputs[f"{side}_representation"]
            representations[f"{side}_representation"] = ops.take(vectors, rows, axis=0)
        outputs = ranker({**inputs, **representations})
        return keras.Model({**inputs, **encoder.input}, outputs, name=self.name)

    def forms(self, model):
        """Those of `Model.forms` and `encode_images`, the explained image encoder."""
        encoder = self.image_encoder(self._layers_of(model), explain=True)
        return {**super().forms(model), "encode_images": encoder}

    def ranker_of(self, model):
        """The part of a built model that is no image encoder."""
        return model.get_layer("ranker")

    def _require_categories(self):
        """Raises an `InputError` unless what is seen of images has a category.

        The clicks' categories are rows of the candidates', which are needed anyway.
        """
        clicks = ("history_category",) if "history" in self.sides else ()
        for name in ("category", *clicks):
            if name not in self.schema:
                raise InputError(
                    f"schema: a model with category prior needs {name}; build the "
                    "examples with it, or take another model"
                )


def map_encoder(images, encode, dropout=0.0, pool=False):
    """The `image_encoder` of feature maps around a function of Keras tensors.

    Args:
        images: `ImageInput`.
        encode: function `(maps, category, mask)` to what the encoder gives; `maps` are
            standardised, `mask` is true where there is an image.
        dropout: rate at which training drops whole channels of a map.
        pool: whether `encode` takes `[U, c]`, the means of the maps' positions.
    """
    maps = keras.Input(images.shape, dtype="float16", name="image_map")
    category = keras.Input((), dtype="int32", name="image_category")
    x = maps
    if pool:
        # Before it is standardised, which gives the same for less.
        x = ops.mean(ops.cast(x, "float32"), axis=(1, 2))
    if images.channel_mean is not None:
        x = keras.layers.Normalization(
            mean=images.channel_mean, variance=images.channel_std**2
        )(x)
    if dropout:
        kind = keras.layers.Dropout if pool else keras.layers.SpatialDropout2D
        x = kind(dropout)(x)
    # Category 0 stands beside padding only.
    outputs = encode(x, category, ops.not_equal(category, 0))
    return keras.Model(
        {"image_map": maps, "image_category": category}, outputs, name="image_encoder"
    )


def cnn_options(options):
    """Arguments of `HybridCNN` that the options describe; `CNNOptions` → dict."""
    arguments = {"filters": options.cnn_filters}
    if options.shortcut:
        arguments |= {"even_attention": True, "prior_stddev": PRIOR_STDDEV}
    return arguments


def with_shortcut(images, maps, mask, options, layers):
    """A CNN's vectors, with the shortcut past it if the options have it."""
    if not options.shortcut:
        return images
    return layers.get("shortcut", PooledShortcut)(images, maps, mask=mask)


def with_channel_attention(images, cnn, maps, category=None):
    """Representations and what explains them.

    Args:
        images: what `cnn`, a `HybridCNN`, gives for `maps` and `category`.
        cnn: likewise.
        maps: likewise.
        category: likewise, `None` if `cnn` takes none.

    Returns:
        `images`, or if the layer weighs channels, a dict of them as `representation`
        and of `channel_attention [U, c]`.
    """
    if cnn.attention is None:
        return images
    prior = None if category is None else cnn.prior(category)
    _, weights = cnn.attention(maps, prior=prior, return_attention_scores=True)
    return {"representation": images, "channel_attention": weights}
