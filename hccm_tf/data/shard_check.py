"""Whether the content of a store's files is what was written."""

import contextlib
import threading
import zlib

import numpy as np

from hccm_tf.errors import InputError

BLOCK = 2**18  # bytes, which stay in the processor's cache
EXPONENT = 0x7C00  # of float16; all of these bits are set in what is no finite number

# Files that were found to be whole, each with its size, time and checksum.
_whole = set()


def check_file(file, crc32, is_float16):
    """Reads a file of a shard.

    Args:
        file: `pathlib.Path`.
        crc32: its checksum, int.
        is_float16: whether it holds float16 values.

    Raises:
        InputError: if its content is not that of the checksum, or no finite numbers.
    """
    found, finite = 0, True
    with open(file, "rb") as handle:
        while block := handle.read(BLOCK):
            found = zlib.crc32(block, found)
            if is_float16:
                bits = np.frombuffer(block, np.uint16) & EXPONENT
                finite &= not (bits == EXPONENT).any()
    if found != crc32:
        raise InputError(
            f"{file}: its content is not that of its checksum; extract the feature "
            "maps again"
        )
    if not finite:
        raise InputError(
            f"{file}: it holds values that are no finite numbers; extract the feature "
            "maps again"
        )


def check_file_once(file, crc32, is_float16):
    """`check_file`, unless this process found the file whole before."""
    state = file.stat()
    known = str(file), state.st_size, state.st_mtime_ns, crc32
    if known not in _whole:
        check_file(file, crc32, is_float16)
        _whole.add(known)


def check_moments(path, metadata):
    """Checks each channel's mean and standard deviation.

    Args:
        path: of the metadata, for the error.
        metadata: dict, `shape`, `channel_mean` and `channel_std`, and `count` and
            `moments` of a store that can be extended.

    Raises:
        InputError: if they are impossible; names the channel.
    """
    mean, std = (np.asarray(metadata[f"channel_{n}"], float) for n in ("mean", "std"))
    channels = metadata["shape"][-1:]
    if not mean.shape == std.shape == tuple(channels):
        raise InputError(
            f"{path}: channel_mean and channel_std have {mean.size} and {std.size} "
            f"values, the maps {channels[0]} channels; extract the feature maps again"
        )
    good = np.isfinite(mean) & np.isfinite(std) & (std > 0)
    if "moments" in metadata:
        positions = metadata["count"] * np.prod(metadata["shape"][:-1])
        first, second = np.asarray(metadata["moments"], float) / positions
        squares = std**2 + mean**2
        # As far as rounding goes, of a difference of large numbers.
        good &= np.isclose(first, mean, rtol=1e-6, atol=1e-9)
        good &= np.isclose(second, squares, rtol=1e-6, atol=1e-9)
    if not good.all():
        channel = int(np.argmin(good))
        raise InputError(
            f"{path}: channel {channel} cannot have mean {mean[channel]:g} and "
            f"standard deviation {std[channel]:g}; extract the feature maps again"
        )


class BackgroundCheck:
    """Checks an image store in a thread while others read it.

    Args:
        images: `hccm_tf.data.image_store.ImageStore`, or `None`.
    """

    def __init__(self, images):
        self._images, self._error = images, None
        self._thread = threading.Thread(target=self._check, daemon=True)
        self._thread.start()

    def _check(self):
        try:
            if self._images is not None:
                self._images.check_once()
        except Exception as error:
            self._error = error

    def raise_if_damaged(self):
        """Raises the `InputError` that names the damage, if it is found by now."""
        if self._error is not None:
            raise self._error

    def wait(self):
        """Waits until all is checked, and raises as `raise_if_damaged`."""
        self._thread.join()
        self.raise_if_damaged()


@contextlib.contextmanager
def checked(images):
    """Yields a `BackgroundCheck`; the block's result counts if the images are whole.

    Raises:
        InputError: if they are not. It goes before the `FloatingPointError` of a loss
            that damage made infinite.
    """
    check = BackgroundCheck(images)
    try:
        yield check
    except FloatingPointError:
        check.wait()
        raise
    check.wait()
