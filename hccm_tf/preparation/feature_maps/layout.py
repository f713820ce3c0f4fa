"""How vectors, patch tokens and maps lie on a feature map."""

import dataclasses
import math

import numpy as np

from hccm_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the tokens `[P, D]` of a transformer lie in an image.

    Args:
        skip_tokens: number of the first tokens that are no patches, such as 1 for that
            of the class.
        height: rows of patches; `None` for a square.
        width: columns of patches, likewise.
    """

    skip_tokens: int = 0
    height: int | None = None
    width: int | None = None

    def shape(self, shape):
        """`(h, w, c)` of the map that an array of a shape becomes.

        Raises:
            InputError: if it can become none.
        """
        if len(shape) != 2 and self != Layout():
            raise InputError(
                "skip_tokens, height and width are of patch tokens [P, D]. Received: "
                f"arrays of {shape}"
            )
        if len(shape) == 1:
            return 1, 1, *shape
        if len(shape) == 3:
            return shape
        if len(shape) != 2:
            raise InputError(
                f"vectors [D], patch tokens [P, D] or maps [h, w, c]. Received: {shape}"
            )
        patches = shape[0] - self.skip_tokens
        height, width = self.height, self.width
        if height is None and width is None:
            height = math.isqrt(max(0, patches))
        width = width or patches // max(1, height)
        height = height or patches // width
        if patches < 1 or height * width != patches:
            raise InputError(
                f"{patches} patch tokens are not {height} x {width}: name height and "
                "width, or with skip_tokens the number of the first ones that are no "
                f"patches. Received: arrays of {shape}"
            )
        return height, width, shape[1]

    def maps(self, arrays):
        """Arrays `[N, ...]` as float32 maps `[N, h, w, c]`."""
        shape = self.shape(arrays.shape[1:])
        if arrays.ndim == 3:
            arrays = arrays[:, self.skip_tokens :]
        with np.errstate(over="ignore"):
            return arrays.astype(np.float32).reshape(-1, *shape)
