from __future__ import annotations

import re
from html.parser import HTMLParser

from memrecon_fast.showing import html

EVIL = "<b onclick=x>&\"'\x1b[2J\u202e"
SHOWN = "&lt;b onclick=x&gt;&amp;&quot;&#x27;\\x1b[2J\\u202e"


class Checked(HTMLParser):
    """That every tag is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.seen.append(tag)
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_all_text_is_escaped() -> None:
    whole = html.block(
        EVIL,
        html.paragraph(EVIL),
        html.paragraph(EVIL, loud=True),
        html.facts([(EVIL, EVIL)]),
        html.table([EVIL], [[EVIL]], [False]),
        html.strip([[EVIL]], [EVIL], [[EVIL]]),
    )
    assert "b" not in Checked(whole).seen
    assert "\x1b" not in whole
    assert "\u202e" not in whole
    assert whole.count(SHOWN) == 11  # the row of pictures is named in each picture, too


def test_a_table_has_its_numbers_to_the_right() -> None:
    table = html.table(["name", "count"], [["a", "1"], ["b", "2"]], [False, True])
    aligned = re.findall(r"<t[hd] style=\"[^\"]*text-align:(\w+)[^\"]*\">(\w+)</t[hd]>", table)
    assert aligned == [
        ("left", "name"), ("right", "count"), ("left", "a"), ("right", "1"), ("left", "b"), ("right", "2"),
    ]  # fmt: skip


def test_a_strip_has_a_row_for_each_kind_and_captions_below() -> None:
    strip = html.strip([["a1", "b1"], ["a2", ""]], ["first", "second"], [["one", "1 dB"], ["two"]])
    rows = [re.sub(r"<img src=\"(\w+)\"[^>]*>", r"\1", row) for row in re.findall("<tr>.*?</tr>", strip)]
    assert [[re.sub("<.*?>", " ", cell).strip() for cell in re.findall("<t[hd].*?</t[hd]>", row)] for row in rows] == [
        ["first", "a1", "a2"],
        ["second", "b1", "–"],
        ["", "one 1 dB", "two"],
    ]
    assert Checked(strip).seen.count("img") == 3
