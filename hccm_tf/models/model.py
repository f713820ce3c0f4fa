"""What a CTR model is: a class that builds Keras graphs of a schema and options."""

import dataclasses

import keras
import numpy as np

from hccm_tf.models.ensemble import build_ensemble, rankers_of
from hccm_tf.models.layer_pool import LayerPool
from hccm_tf.models.options import NetworkOptions
from hccm_tf.models.ranker import build_ranker


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """What a model has to know of the images that it takes; measured, not chosen.

    Args:
        shape: `(h, w, c)` of a feature map, or of an image's pixels.
        channel_mean: float32 `[c]`, to standardise the maps' channels; `None` leaves
            them as they are.
        channel_std: float32 `[c]`, likewise.
        pca: `(mean, components)` of the pooled standardised maps, float32 `[c]` and
            `[D, c]`, for a projection that is fitted and not trained; else `None`.
    """

    shape: tuple
    channel_mean: np.ndarray | None = None
    channel_std: np.ndarray | None = None
    pca: tuple | None = None


class Model:
    """A CTR model, before it has weights: base class of the models.

    One of your own is a subclass that `--model=my_package.my_module:MyModel` names. It
    has a `name` and, if it takes options of its own, a frozen dataclass `Options`.

    Args:
        schema: `hccm_tf.data.Schema`.
        options: an instance of `Options`; `None` for all defaults.
        images: `ImageInput`; `None` for a model without images.
        embedding_shards: over how many weights the rows of a large embedding table are
            dealt out, see `hccm_tf.layers.Embedding`.

    Attributes:
        name: how users call the model.
        Options: class of its options.
        settings: names of the `TrainingSettings` that it reads; `None` for all.
        has_images: whether it has an image encoder, see `ImageModel`.
        has_attention: whether an attention pools the item history.
    """

    name = settings = None
    Options = NetworkOptions
    has_images = takes_pixels = tells_category = False
    has_attention = True

    def __init__(self, schema, options=None, images=None, embedding_shards=1):
        self.schema = schema
        self.options = self.Options() if options is None else options
        self.images = images
        self.embedding_shards = embedding_shards

    @property
    def image_dim(self):
        """Width of the images' vectors, `None` without images."""
        return None

    @property
    def sides(self):
        """Whose images the model sees: tuple of `"candidate"` and `"history"`."""
        return ()

    def build(self):
        """A new `keras.Model` for training, with new weights.

        Returns:
            `keras.Model` from the dict of tensors that `hccm_tf.data` makes to the
            click probabilities `[R, N, 1]` of R requests' candidates. Of an ensemble
            of K rankers they are `[R, N, K]` in training, for
            `hccm_tf.models.ensemble.EnsembleLoss`.
        """
        return build_ensemble(self, LayerPool(), many_candidates=True)

    def forms(self, model):
        """The other graphs over a built model's weights, for serving and explanation.

        Args:
            model: of `build`.

        Returns:
            dict name → `keras.Model`, those that the model has of: `rank`, the ranker
            as it was trained, whose rows are requests of one user with N candidates;
            `ranker`, whose rows are impressions; and `explain`, the ranker of
            impressions to its attentions' weights.

        Raises:
            ValueError: if the model was built with other options.
        """
        size = len(rankers_of(self.ranker_of(model)))
        if size != self.options.ensemble_size:
            raise ValueError(
                "these are not the options that the model was built with: "
                f"ensemble_size is {size}. Received: {self.options.ensemble_size}"
            )
        layers = self._layers_of(model)
        forms = {"ranker": build_ensemble(self, layers)}
        if any(feature.candidate for feature in self.schema.scalars):
            forms["rank"] = self.ranker_of(model)
        if (self.has_attention and self.schema.sequences) or "history" in self.sides:
            forms["explain"] = build_ensemble(self, layers, explain=True)
        return forms

    def ranker_of(self, model):
        """The part of a built model that is no image encoder: all of it."""
        return model

    def ranker(self, layers, many_candidates=False, explain=False):
        """Builds a ranker, see `hccm_tf.models.ranker`; one of an ensemble's.

        Args:
            layers: `LayerPool`; another ranker of the same pool has the same weights.
            many_candidates: whether a row has N candidates.
            explain: whether the outputs are the attentions' weights instead.
        """
        return build_ranker(self, layers, many_candidates, explain)

    def _layers_of(self, model):
        parts = [layer for layer in model.layers if isinstance(layer, keras.Model)]
        return LayerPool(model, *parts)
