"""What a voice says of Markdown, HTML, addresses and sums."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuserver.pipeline.speakable import speakable


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("**Hello** _world_, `code`, ~~old~~ and [a link](https://x.y/z?q=1).", "Hello world, code, old and a link."),
        ("2*3*4 = 24", "2×3×4 = 24"),
        ("a*b and 5 * 3 and (1+2)*3", "a×b and 5×3 and (1+2)×3"),
        ("2**10 and `x**2`", "2^10 and x^2"),
        ("**重点：**记住", "重点：记住"),
        ("**Hello.", "Hello."),
        ("World** is", "World is"),
        ("snake_case stays", "snake_case stays"),
        ("Visit https://www.example.org/a/b?c=d. Now", "Visit example.org. Now"),
        ("请看https://example.com/a。好", "请看example.com。好"),
        ("<speak><prosody rate='x'>Hi</prosody> <break time='1s'/>there</speak>", "Hi there"),
        ("<b>bold</b><br/>next<!-- not this -->", "bold next"),
        ("if x<y and y>z then", "if x<y and y>z then"),
        ("1 < 2 &amp; 3 > 2", "1 < 2 & 3 > 2"),
        ("😀 Hi 👨‍👩‍👧 there ❤️!", "Hi there !"),
        ("![a cat](cat.png) sleeps", "a cat sleeps"),
        ("\\*not emphasis\\*", "not emphasis"),
        ("", ""),
        ("😀", ""),
    ],
)
def test_only_what_can_be_said_is_left(text: str, spoken: str) -> None:
    assert speakable(text) == spoken


@given(st.text(max_size=200))
def test_any_text_is_spoken_without_markers_or_double_spaces(text: str) -> None:
    spoken = speakable(text)
    assert "**" not in spoken
    assert "\n" not in spoken
    assert spoken == " ".join(spoken.split())
