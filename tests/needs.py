"""What a test needs of what is installed, so that a skip on an old version is told from something that is missing."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.version import Version


def older(distribution: str, version: str) -> bool:
    """Tell whether a release before this one is installed; a pre-release counts as the release that it leads to."""
    return Version(metadata.version(distribution)).release < Version(version).release


def needs(distribution: str, version: str, why: str) -> pytest.MarkDecorator:
    """Skip a test on older releases."""
    return pytest.mark.skipif(older(distribution, version), reason=f"needs {distribution} {version}: {why}")


def cannot_hold(skip: str) -> bool:
    """Tell whether the report of a skip names a release that really is newer than what is installed."""
    found = re.search(r"needs (\S+) (\d[\d.]*): ", skip)
    return found is not None and older(found[1], found[2])
