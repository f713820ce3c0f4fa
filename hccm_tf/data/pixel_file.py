"""Images as pixels, decoded once into a file."""

import pathlib
import tempfile
import weakref

import numpy as np

from hccm_tf.errors import InputError
from hccm_tf.images.read import decode_images
from hccm_tf.progress import advance, progress


class PixelFile:
    """The pixels of images, for graph operations to map into memory.

    Row 0 of the file is black; the images that can be read follow in their order. The
    file goes with this object. A copy that is made by pickling decodes the images anew
    when it is asked for its path.

    Args:
        images: object array of image names.
        image_dir: folder of the images.
        image_size: height and width in pixels.
        shared: path of the file, where other processes are to map it; by default it
            has no name and goes with the process, however that ends.
        **allowed: see `hccm_tf.images.read.decode_image`.

    Attributes:
        skipped: dict from the place of an image that cannot be read to the reason.

    Raises:
        InputError: if the file cannot be written.
    """

    def __init__(self, images, image_dir, image_size, shared=None, **allowed):
        self._told = image_dir, image_size, allowed
        self._shared = None if shared is None else pathlib.Path(shared)
        self._file, self.skipped = self._write(images)
        self._images = np.delete(images, list(self.skipped))

    def __getstate__(self):
        # Without the file, and its place, which belong to this process.
        return {**vars(self), "_file": None, "_shared": None}

    @property
    def shape(self):
        """`[rows, image_size, image_size, 3]` of the uint8 array in the file."""
        _, image_size, _ = self._told
        return (len(self._images) + 1, image_size, image_size, 3)

    @property
    def path(self):
        """The path under which to map the file."""
        if self._file is None:
            file, skipped = self._write(self._images)
            if skipped:
                place, reason = next(iter(skipped.items()))
                raise InputError(
                    f"image_dir={self._told[0]}: an image that was read before cannot "
                    f"be any more: {self._images[place]}: {reason}"
                )
            self._file = file
        # A file without a name has this one, in this process.
        return str(self._shared or f"/dev/fd/{self._file.fileno()}")

    def _write(self, images):
        """`(file, skipped)` of some images."""
        image_dir, image_size, allowed = self._told
        skipped = {}
        decoded = decode_images(images.tolist(), image_dir, image_size, **allowed)
        try:
            file = self._new_file()
            file.write(bytes(image_size * image_size * 3))
            with progress("decoding", len(images), "photo"):
                for place, (pixels, reason) in enumerate(decoded):
                    if reason is None:
                        file.write(pixels.tobytes())
                    else:
                        skipped[place] = reason
                    advance(1)
            file.flush()
        except OSError as error:
            where = self._shared or tempfile.gettempdir()
            raise InputError(
                f"{where}: {len(images)} images of {image_size} x {image_size} pixels "
                f"cannot be written ({error.strerror}); free the disk, or set TMPDIR "
                "to another one"
            ) from error
        return file, skipped

    def _new_file(self):
        if self._shared is None:
            return tempfile.TemporaryFile(prefix="hccm_tf-")
        # Readers of the file of a process that was killed keep it.
        self._shared.unlink(missing_ok=True)
        file = open(self._shared, "xb")
        weakref.finalize(self, self._shared.unlink, missing_ok=True)
        return file
