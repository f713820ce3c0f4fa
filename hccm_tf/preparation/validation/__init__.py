"""Reads a data folder and its feature maps again and says what is wrong."""
