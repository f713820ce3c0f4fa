"""Outputs that appear under their name only when they are whole."""

import contextlib
import pathlib
import shutil

from hccm_tf.errors import InputError


@contextlib.contextmanager
def new_folder(path, resume=False):
    """Yields a temporary folder that becomes `path` when the block ends well.

    Args:
        path: the folder to make; it must not exist.
        resume: whether to keep what an interrupted run left in the temporary
            folder. Otherwise the folder starts empty and an error removes it.

    Raises:
        InputError: if `path` exists.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise InputError(f"{path} exists already: remove it or name another folder")
    temporary = path.with_name(path.name + ".incomplete")
    if temporary.exists() and not resume:
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    except BaseException:
        if not resume or not any(temporary.iterdir()):
            shutil.rmtree(temporary)
        raise
    temporary.rename(path)
