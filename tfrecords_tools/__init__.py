"""Command-line tools that make the data: feature maps, histories, TFRecords."""
