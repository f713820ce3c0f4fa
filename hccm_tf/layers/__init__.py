"""Keras layers for click-through rate prediction from images."""

from hccm_tf.layers.category_prior import CategoryPrior
from hccm_tf.layers.channel_attention import ChannelAttention
from hccm_tf.layers.cosine_similarity import CosineSimilarity
from hccm_tf.layers.dice import Dice
from hccm_tf.layers.din_attention import DINAttention
from hccm_tf.layers.embedding import Embedding
from hccm_tf.layers.hybrid_cnn import HybridCNN
from hccm_tf.layers.id_dropout import IdDropout
from hccm_tf.layers.multi_query_attention import MultiQueryAttention
from hccm_tf.layers.pooled_shortcut import PooledShortcut
from hccm_tf.layers.similarity_histogram import SimilarityHistogram
from hccm_tf.layers.spatial_attention import SpatialAttention

__all__ = [
    "CategoryPrior",
    "ChannelAttention",
    "CosineSimilarity",
    "DINAttention",
    "Dice",
    "Embedding",
    "HybridCNN",
    "IdDropout",
    "MultiQueryAttention",
    "PooledShortcut",
    "SimilarityHistogram",
    "SpatialAttention",
]
