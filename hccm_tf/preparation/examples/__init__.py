"""A click log and its catalogue become a data folder of TFRecords."""
