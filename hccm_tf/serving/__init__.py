"""Serving: the representation table and the SavedModel that answers from ids."""
