"""tf.data: parsing, batching, image deduplication, feature-map store."""
