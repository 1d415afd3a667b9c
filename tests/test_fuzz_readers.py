"""No file makes a reader fail otherwise than by one short line, or take more than a second.

Examples are good files with pieces changed, cut, doubled, or put in from a list for each reader
(`fuzzed_readers.py`). What was found once stays there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, List

import pytest
from fuzzed_readers import READERS, Reader
from hypothesis import given
from hypothesis import strategies as st

SECONDS = 1.0
# A file's name and a name in it, at most 255 bytes each, and the words around them.
MOST_CHARS = 1000


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def refusal(reader: Reader, place: Path, content: bytes) -> str:
    """What a reader says of a file; nothing where it takes it."""
    path = place / reader.file
    path.write_bytes(content)
    start = time.process_time()
    try:
        reader.read(path)
        return ""
    except (ValueError, OSError) as error:
        said = str(error)
    finally:
        assert time.process_time() - start < SECONDS
    assert 0 < len(said) < MOST_CHARS, said
    return said


def good_files(reader: Reader, place: Path) -> List[bytes]:
    return [good if isinstance(good, bytes) else good(place) for good in reader.good]


def changed(reader: Reader, good: List[bytes]) -> st.SearchStrategy[bytes]:
    """Good files after one to four changes."""

    @st.composite
    def strategy(draw: Callable) -> bytes:
        content = draw(st.sampled_from(good))
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(content)))
            end = draw(st.integers(start, min(len(content), start + 16)))
            pieces = [st.binary(max_size=8), st.just(content[start:end] * 2)]
            pieces += [st.sampled_from(reader.words)] if reader.words else []
            content = content[:start] + draw(st.one_of(pieces)) + content[end:]
        return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content

    return strategy()


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_a_reader_takes_a_file_or_says_why_not(reader: Reader, place: Path) -> None:
    good = good_files(reader, place)
    for content in reader.found:
        assert refusal(reader, place, content)

    @given(changed(reader, good))
    def check(content: bytes) -> None:
        refusal(reader, place, content)

    check()
