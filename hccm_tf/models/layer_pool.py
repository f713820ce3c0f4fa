"""Layers by name, so that several graphs of a model share their weights."""


class LayerPool:
    """Makes each layer when its name first occurs.

    Args:
        *models: `keras.Model`s whose layers are there from the start. With them, no
            further layer is made.
    """

    def __init__(self, *models):
        self._complete = bool(models)
        self._layers = {layer.name: layer for model in models for layer in model.layers}
        self._parts = {}

    def get(self, name, make):
        """The layer of this name, by `make(name=name)` if there is none yet.

        Raises:
            ValueError: if the models have no such layer: they have other options.
        """
        if name not in self._layers:
            if self._complete:
                raise ValueError(
                    "these are not the options that the model was built with. "
                    f"Received: options for a layer {name}"
                )
            self._layers[name] = make(name=name)
        return self._layers[name]

    def part(self, name):
        """The pool of the layers of a `keras.Model` that is one of the layers.

        Where none is there from the start, the pool is empty at first.
        """
        if name not in self._parts:
            models = [self._layers[name]] if self._complete else []
            self._parts[name] = LayerPool(*models)
        return self._parts[name]
