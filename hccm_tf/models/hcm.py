"""`hcm`: the hybrid CNN without category prior (HCCM, 3.1.3)."""

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
from hccm_tf.models.options import CNNOptions
from hccm_tf.options import option


class HCM(ImageModel):
    """As an option the channels are weighed, by the image alone."""

    name = "hcm"

    @dataclasses.dataclass(frozen=True)
    class Options(CNNOptions):
        """The channel attention, without the category."""

        channel_attention: bool = option(
            False, "Whether the trainable CNN weighs the channels of the maps."
        )

    def image_encoder(self, layers, explain=False):
        make = functools.partial(
            HybridCNN,
            self.image_dim,
            channel_attention=self.options.channel_attention,
            **cnn_options(self.options),
        )
        cnn = layers.get("hybrid_cnn", make)

        def encode(maps, category, mask):
            del category
            images = cnn(maps, feature_map_mask=mask)
            images = with_shortcut(images, maps, mask, self.options, layers)
            return with_channel_attention(images, cnn, maps) if explain else images

        return map_encoder(self.images, encode, self.options.map_dropout)
