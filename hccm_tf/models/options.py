"""The options that several models have, from those of all to those of few."""

import dataclasses

from hccm_tf.layers import DINAttention, MultiQueryAttention
from hccm_tf.options import Options, option


@dataclasses.dataclass(frozen=True)
class NetworkOptions(Options):
    """The embeddings and the final MLP."""

    embedding_dim: int = option(
        8,
        "The width of a feature's embedding, unless the schema says another.",
        lower=1,
    )
    hidden_units: tuple = option(
        (400, 160, 80), "The widths of the final MLP's hidden layers.", lower=1
    )
    dropout: float = option(
        0.0, "The dropout rate after each hidden layer.", lower=0, upper=1
    )
    input_dropout: float = option(
        0.0, "The dropout rate of what enters the final MLP.", lower=0, upper=1
    )
    id_dropout: float = option(
        10.0,
        "Training hides an id that occurs n times at the rate x / (x + n), where x is "
        "this option; this trains the row of unknown ids and keeps rare ones from "
        "being learnt by heart, 0 turns it off (Kiperwasser and Goldberg, TACL 2016).",
        lower=0,
    )
    match_shares: bool = option(
        False,
        "Whether the final MLP sees, for each history, the share of its clicks that "
        "have the candidate's value.",
    )
    ensemble_size: int = option(
        1,
        "How many rankers are trained side by side, each with embeddings, attention, "
        "MLP and loss of its own, over one image encoder; their mean answers.",
        lower=1,
    )


@dataclasses.dataclass(frozen=True)
class DINOptions(NetworkOptions):
    """The attention over the item history."""

    attention_hidden_units: tuple = option(
        (80, 40), "The widths of the hidden layers of DIN's unit.", lower=1
    )
    attention_activation: str = option(
        "dice", "The activation in DIN's unit: dice, or one of Keras such as relu."
    )
    products: bool = option(
        False,
        "Whether the products of the candidate with the attention's output and with "
        "the history's mean join that output, for items and for images.",
    )

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


@dataclasses.dataclass(frozen=True)
class ImageOptions(DINOptions):
    """The images, as vectors."""

    image_embedding_dim: int = option(
        128, "The width of an image's representation.", lower=1
    )


@dataclasses.dataclass(frozen=True)
class ImageHistoryOptions(ImageOptions):
    """The attention over the history's images."""

    image_attention: str = option(
        "din",
        "The attention over the history's images: {choices}; dot_product is HCCM's "
        "Eq. 14, multi_query has a second one whose query is the candidate's ids "
        "(AMS, CIKM '18).",
        ("din", "dot_product", "multi_query"),
    )
    similarity: str = option(
        "none",
        "What the final MLP sees of the candidate's similarity to the history's "
        "images: {choices}; cosine gives mean, maximum and soft maximum, "
        "category_cosine also those over the clicks of the candidate's category, "
        "histogram is SimTier (CIKM '24).",
        ("none", "cosine", "category_cosine", "histogram"),
    )
    image_sides: str = option(
        "both",
        "Whose images the model sees: {choices}; with history, a projection of the "
        "candidate's ids is the query, with candidate its vector joins the final MLP.",
        ("both", "history", "candidate"),
    )


@dataclasses.dataclass(frozen=True)
class MapOptions(ImageHistoryOptions):
    """The feature maps."""

    map_dropout: float = option(
        0.0,
        "The rate at which training drops whole channels of the feature maps (Tompson "
        "et al., CVPR 2015).",
        lower=0,
        upper=1,
    )


@dataclasses.dataclass(frozen=True)
class CNNOptions(MapOptions):
    """The trainable CNN on feature maps."""

    cnn_filters: tuple = option(
        (64, 128), "The filters of the trainable CNN's two convolutions.", lower=1
    )
    shortcut: bool = option(
        False,
        "Whether an image's vector is a projection of the pooled maps, to which the "
        "trainable CNN's, centred, is added through a gate that is shut at first; its "
        "attention then starts even, its priors small.",
    )

    def __post_init__(self):
        super().__post_init__()
        if len(self.cnn_filters) != 2:
            raise ValueError(
                "cnn_filters: one width for each of the two convolutions. Received: "
                f"{self.cnn_filters}"
            )
