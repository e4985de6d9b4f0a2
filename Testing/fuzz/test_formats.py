"""Each format a few times over; ``bench_fuzz.py`` tries many more."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform == "win32":
    pytest.skip("the guard needs POSIX limits", allow_module_level=True)

from hostile_guard import try_input


def formats():
    names = ("hostile_documents", "hostile_images", "hostile_weights")
    return [each for name in names for each in sys.modules[name].FORMATS]


@pytest.mark.parametrize("format_", formats(), ids=lambda each: each.name)
def test_whatever_a_file_holds_it_is_read_correctly_or_refused_in_words(format_):
    @given(st.data())
    def run(data):
        try_input(format_, data.draw(format_.contents))

    run()
