"""Generators of every kind, in memory and as files."""

from __future__ import annotations

import pytest
from helpers.generators import generator_of, spec_of

from fastgan import generator_file

GENERATORS = {
    "images": generator_of(spec_of(12), shape=(4, 3)),
    "labelled images": generator_of(spec_of(12, 3), shape=(2, 2, 3), names=("7", "-1", "30"), scale=3.0),
    "float images": generator_of(spec_of(12, head="linear"), shape=(4, 3), dtype="float32"),
    "features": generator_of(spec_of(16, head="linear"), dtype="float32"),
    "labelled features": generator_of(spec_of(5, 3), names=("no", "yes", "é")),
}


@pytest.fixture(params=GENERATORS)
def generator(request):
    return GENERATORS[request.param]


@pytest.fixture
def labelled():
    """Images with labels 7, -1 and 30."""
    return GENERATORS["labelled images"]


@pytest.fixture
def features():
    """Sixteen floats, without labels."""
    return GENERATORS["features"]


@pytest.fixture
def path(tmp_path, labelled):
    """A file of ``labelled``."""
    generator_file.save(tmp_path / "generator.safetensors", labelled)
    return tmp_path / "generator.safetensors"


@pytest.fixture
def numbers(tmp_path):
    """A file of what ``served.HERE`` has the rows of."""
    from served import NUMBERS

    generator_file.save(tmp_path / "numbers.safetensors", NUMBERS)
    return tmp_path / "numbers.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with three generator files, as a server has them."""
    folder = tmp_path_factory.mktemp("files")
    generators = {
        "images": generator_of(spec_of(12, 3), shape=(2, 2, 3), names=("7", "-1", "30"), scale=3.0),
        "numbers": generator_of(spec_of(16, head="linear"), dtype="float32"),
        "people": generator_of(spec_of(5, 3), names=("no", "yes", "é")),
    }
    for name, generator in generators.items():
        generator_file.save(folder / f"{name}.safetensors", generator)
    return folder
