"""An evaluation folder, made once, and a copy of it for each test."""

import shutil

import pytest

from tests.report.evaluation_samples import write_folder


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("evaluation") / "folder")


@pytest.fixture
def folder(sample_folder, tmp_path):
    return shutil.copytree(sample_folder, tmp_path / "folder")
