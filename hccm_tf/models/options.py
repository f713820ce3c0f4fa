"""The options that all models share."""

import dataclasses

import numpy as np

from hccm_tf.layers import DINAttention, MultiQueryAttention

IMAGE_ATTENTIONS = ("din", "dot_product", "multi_query")
SIMILARITIES = ("none", "cosine", "histogram")
PROJECTIONS = ("trainable", "pca")
IMAGE_SIDES = ("both", "history", "candidate")
CNN_ATTENTIONS = ("none", "se", "cbam", "category")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Options of `build_model`.

    Args:
        embedding_dim: width of a feature's embedding unless the schema says another.
        hidden_units: widths of the final MLP's hidden layers (HCCM, 3.1.3).
        attention_hidden_units: widths of DIN's unit.
        attention_activation: activation in DIN's units: `"dice"`, or a Keras name.
        dropout: rate after each hidden layer of the final MLP.
        id_dropout: training replaces the ids of a feature whose values occur n times
            in the mean by out-of-vocabulary at the rate `id_dropout / (id_dropout + n)`
            (Kiperwasser and Goldberg, TACL 2016, there by word). This is what trains
            the out-of-vocabulary row. 0 turns it off.
        products: whether q ⊙ attention output and q ⊙ mean(history) join the
            attention outputs, for the item history and for the images. `False` is
            the plain form of the papers.
        image_embedding_dim: width of an image's representation.
        cnn_filters: filters of the trainable CNN's two convolutions.
        image_attention: `"din"`, `"dot_product"` (HCCM, Eq. 14), or `"multi_query"`
            for a second attention whose query are the candidate's ids.
        similarity: of the candidate's image with the history's: `"none"`, `"cosine"`
            for mean, maximum and soft maximum of the cosines, or `"histogram"` for
            theirs (SimTier).
        image_sides: whose images the model sees. `"both"`; `"history"`: an attention
            over the history's images whose query is a projection of the candidate's
            embeddings of what the histories hold, which is our choice, and which
            `multi_query` and `histogram` do not take; `"candidate"`: its vector joins
            the final MLP, and `products`, `image_attention` and `similarity` have
            nothing to say about images. `cscnn` is always the last.
        channel_attention: whether the trainable CNN of `hccm` or `hcm` weighs the
            channels; `None` for what the model is: `hccm` does, `hcm` does not.
        prior_channel: whether `hccm` appends the category's prior as a channel.
        projection: of `din_fixed_cnn`: `"trainable"`, or `"pca"`, which is frozen.
        pca_mean: `[c]` for projection `"pca"`, mean of the pooled standardised maps.
        pca_components: `[image_embedding_dim, c]`, likewise.
        cnn_backbone: of `cscnn`, a key of `hccm_tf.models.backbones.BACKBONES`.
        cnn_layer: of `cscnn`, the backbone's last layer to keep; `None` for its
            default.
        cnn_attention: of `cscnn`, what follows each block: `"none"`, `"se"`, `"cbam"`
            or `"category"`.
        feature_map_shape: `(h, w, c)` of a feature map, or of an image's pixels; for
            models with images.
        channel_mean: `[c]`, to standardise the maps' channels; `None` leaves them.
        channel_std: `[c]`, likewise.
        embedding_shards: over how many weights the rows of a feature's table are dealt
            out if it is large, see `hccm_tf.layers.Embedding`.
    """

    embedding_dim: int = 8
    hidden_units: tuple = (400, 160, 80)
    attention_hidden_units: tuple = (80, 40)
    attention_activation: str = "dice"
    dropout: float = 0.0
    id_dropout: float = 10.0
    products: bool = False
    image_embedding_dim: int = 128
    cnn_filters: tuple = (64, 128)
    image_attention: str = "din"
    similarity: str = "none"
    image_sides: str = "both"
    channel_attention: bool | None = None
    prior_channel: bool = True
    projection: str = "trainable"
    pca_mean: np.ndarray | None = None
    pca_components: np.ndarray | None = None
    cnn_backbone: str = "MobileNetV3Small"
    cnn_layer: str | None = None
    cnn_attention: str = "category"
    feature_map_shape: tuple | None = None
    channel_mean: np.ndarray | None = None
    channel_std: np.ndarray | None = None
    embedding_shards: int = 1

    def din_attention(self, name):
        """The attention unit that these options describe."""
        return DINAttention(
            self.attention_hidden_units, self.attention_activation, name=name
        )

    def multi_query_attention(self, name):
        """The same unit with two queries."""
        return MultiQueryAttention(
            self.attention_hidden_units, self.attention_activation, name=name
        )

    def __post_init__(self):
        if self.id_dropout < 0:
            raise ValueError(f"id_dropout: 0 or more. Received: {self.id_dropout}")
        for name in ("hidden_units", "attention_hidden_units", "cnn_filters"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1:
                raise ValueError(f"{name}: widths from 1 on. Received: {widths}")
        if len(self.cnn_filters) != 2:
            raise ValueError(
                f"cnn_filters: one width for each of the two convolutions. Received: "
                f"{self.cnn_filters}"
            )
        for name, values in (
            ("image_attention", IMAGE_ATTENTIONS),
            ("similarity", SIMILARITIES),
            ("image_sides", IMAGE_SIDES),
            ("cnn_attention", CNN_ATTENTIONS),
            ("projection", PROJECTIONS),
        ):
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name} is one of {values}. Received: {getattr(self, name)}"
                )
