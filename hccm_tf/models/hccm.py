"""`hccm`: the hybrid CNN with category prior (HCCM, Eq. 8-15)."""

import dataclasses
import functools

from hccm_tf.layers import HybridCNN
from hccm_tf.models.image_model import (
    ImageModel,
    cnn_options,
    map_encoder,
    with_channel_attention,
    with_shortcut,
)
from hccm_tf.models.non_visual import id_dropout
from hccm_tf.models.options import CNNOptions
from hccm_tf.options import option


class HCCM(ImageModel):
    """Options leave out parts of it; explained by the channel attention."""

    name = "hccm"
    tells_category = True

    @dataclasses.dataclass(frozen=True)
    class Options(CNNOptions):
        """The channel attention with the category prior."""

        channel_attention: bool = option(
            True, "Whether the trainable CNN weighs the channels of the maps."
        )
        prior_channel: bool = option(
            True, "Whether the category's prior is appended to the maps as a channel."
        )

    def image_encoder(self, layers, explain=False):
        feature = self.schema["category"]
        make = functools.partial(
            HybridCNN,
            self.image_dim,
            num_categories=self.schema.num_rows("category"),
            channel_attention=self.options.channel_attention,
            prior_channel=self.options.prior_channel,
            **cnn_options(self.options),
        )
        cnn = layers.get("hybrid_cnn", make)
        dropout = id_dropout(self, feature, layers, "image_category_dropout")

        def encode(maps, category, mask):
            category = dropout(category)
            images = cnn(maps, category, mask)
            images = with_shortcut(images, maps, mask, self.options, layers)
            if not explain:
                return images
            return with_channel_attention(images, cnn, maps, category)

        return map_encoder(self.images, encode, self.options.map_dropout)
