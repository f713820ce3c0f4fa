"""Exports made once."""

import pytest


@pytest.fixture(scope="session")
def versions(fitted, tmp_path_factory):
    """Model's name → folder of its export's first version."""
    folder = tmp_path_factory.mktemp("saved_models")
    return {name: fitted[name].export(folder / name) for name in ("din", "hccm")}
