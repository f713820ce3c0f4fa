"""Layers by name, so that several graphs of a model share their weights."""


class LayerPool:
    """Makes each layer when its name first occurs.

    Args:
        *models: `keras.Model`s whose layers are there from the start.
    """

    def __init__(self, *models):
        self._layers = {layer.name: layer for model in models for layer in model.layers}

    def get(self, name, make):
        """The layer of this name, by `make(name=name)` if there is none yet."""
        if name not in self._layers:
            self._layers[name] = make(name=name)
        return self._layers[name]
