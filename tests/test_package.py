"""The package as installed."""

import importlib.metadata


def test_version_is_known():
    assert importlib.metadata.version("wattwork")
