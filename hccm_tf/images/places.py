"""Where a catalogue may say that an image is: below a folder, or at a public URL."""

import contextlib
import os
import pathlib
import posixpath
import stat

from hccm_tf.errors import InputError
from hccm_tf.files import check_folder, is_remote, join, open_file
from hccm_tf.images.budget import Budget
from hccm_tf.images.download import MAX_BYTES as MAX_DOWNLOAD
from hccm_tf.images.download import SCHEMES, download

MAX_BYTES = 2**28  # of a local file
READING = Budget(2**29)  # bytes of local files that are in memory
# Addressed by names of their own, not by hosts.
OBJECT_STORES = ("gs", "s3", "az", "oss")
# What a user may allow, by the names of flags and arguments.
ALLOWED = {
    "allow_links": "Whether links below --image_dir may lead out of it.",
    "allow_private_urls": "Whether images may be at URLs of hosts whose addresses are "
    "not public, such as this machine's own.",
}


def check_image_dir(images, image_dir):
    """Raises an `InputError` unless there is a folder of images that are no URLs.

    Args:
        images: names of images in a catalogue; an empty one is none.
        image_dir: folder, or `None`.
    """
    local = next((i for i in images if i and not is_remote(i)), None)
    if local is not None and image_dir is None:
        raise InputError(f"image_dir: the folder of images such as {local} is missing")
    if local is not None:
        check_folder("image_dir", image_dir, f", of images such as {local}")


@contextlib.contextmanager
def image_content(image, image_dir, allow_links=False, allow_private_urls=False):
    """Yields the content of an image file, bytes.

    Args:
        image: name of an image in a catalogue, see `hccm_tf.images.read.decode_image`.
        image_dir: folder of the images that are no URLs.
        allow_links: whether links may lead out of `image_dir`.
        allow_private_urls: whether hosts' addresses may be others than public ones.

    Raises:
        ValueError: if the place is not one that a catalogue may name, or the file is
            too large, or no file.
        OSError: if it cannot be read.
    """
    scheme = image.partition(":")[0].lower()
    if scheme == "file":
        raise ValueError("file: is refused; name a path below image_dir")
    if is_remote(image) and scheme in SCHEMES:
        yield download(scheme + image[len(scheme) :], allow_private_urls)
    elif is_remote(image):
        if scheme not in OBJECT_STORES and not allow_private_urls:
            raise ValueError(
                f"{scheme}:// may lead to an internal host; allow_private_urls reads it"
            )
        yield _read_remote(image)
    elif is_remote(image_dir):
        # A store has no "..", which would be letters of a name.
        name = posixpath.normpath(f"./{image}")
        if name.partition("/")[0] == "..":
            raise ValueError("it leads out of image_dir")
        yield _read_remote(join(image_dir, name))
    else:
        path = _path_below(image, image_dir, allow_links)
        with open(path, "rb", opener=_open_regular) as handle:
            size = os.fstat(handle.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"{size} bytes are more than {MAX_BYTES}")
            with READING.hold(size):
                # What grows meanwhile is cut off.
                yield handle.read(size)


def _read_remote(path):
    with open_file(path, MAX_DOWNLOAD) as handle:
        return handle.read()


def _path_below(image, image_dir, allow_links):
    """The path of an image below the folder, of links where they lead."""
    written = os.path.abspath(os.path.join(image_dir, image))
    if allow_links:
        path, folder = written, os.path.abspath(image_dir)
    else:
        path, folder = os.path.realpath(written), os.path.realpath(image_dir)
    if pathlib.Path(path).is_relative_to(folder):
        return path
    if pathlib.Path(written).is_relative_to(os.path.abspath(image_dir)):
        raise ValueError("it is a link out of image_dir; allow_links reads it")
    raise ValueError("it leads out of image_dir")


def _open_regular(path, flags):
    # Without waiting: a pipe would wait for somebody who writes.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is no file")
    return descriptor
