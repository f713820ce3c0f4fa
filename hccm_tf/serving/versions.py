"""The versions of a model: numbered folders, as TensorFlow Serving takes them."""

import pathlib


def versions(export_dir):
    """Numbers of the versions below `export_dir`, ascending."""
    names = [path.name for path in pathlib.Path(export_dir).glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def next_version(export_dir):
    """Path of the next version below `export_dir`."""
    number = max(versions(export_dir), default=0) + 1
    return pathlib.Path(export_dir) / str(number)
