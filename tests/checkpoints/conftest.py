from pathlib import Path

import pytest
from checkpoint_trees import exavatar_tree, svad_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    return svad_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def exavatar(tmp_path_factory) -> Path:
    return exavatar_tree(tmp_path_factory.mktemp("exavatar"))
