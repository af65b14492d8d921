"""Values chosen by name: what may be written, and what is said where it may not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.choices import Family, Text, build, convert, plain
from fedsys.errors import UsageError


@dataclass(frozen=True)
class Square:
    side: float


@dataclass(frozen=True)
class Box:
    width: int = 2
    height: float = 1.5
    label: str = "box"
    solid: bool = False
    depth: float | None = None
    colour: str = field(default="red", kw_only=True)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, not {self.width}")


@dataclass(frozen=True)
class Dot:
    pass


SHAPES = Family("shape", {"square": Square, "box": Box, "dot": Dot})


@dataclass(frozen=True)
class Picture:
    shape: object = field(default=Dot(), metadata={"family": SHAPES})
    frame: Box = Box()
    other: object | None = field(default=None, metadata={"family": SHAPES})


@pytest.mark.parametrize(
    "text, value",
    [
        ("dot", Dot()),
        ("dot:", Dot()),
        ("square:2", Square(2.0)),
        ("square:side=2.5", Square(2.5)),
        ("box", Box()),
        ("box:3", Box(3)),
        ("box:3,4", Box(3, 4.0)),
        ("box:3,4,crate,true,0.5", Box(3, 4.0, "crate", True, 0.5)),
        ("box:solid=yes", Box(solid=True)),
        ("box:solid=NO", Box(solid=False)),
        ("box:3,label=a b", Box(3, label="a b")),
        ("box: width = 3 , height = 4", Box(3, 4.0)),
        ("box:1,1,x,no,1,blue", Box(1, 1.0, "x", False, 1.0, colour="blue")),
        ("box:depth=none", Box()),
        ("box:label=3", Box(label="3")),
        ("box:height=1e-3", Box(height=0.001)),
    ],
)
def test_the_short_form(text, value):
    assert SHAPES.parse(text) == value


@pytest.mark.parametrize(
    "table, value",
    [
        ({"name": "dot"}, Dot()),
        ("dot", Dot()),
        ({"name": "square", "side": 2}, Square(2.0)),
        ({"name": "box:3", "height": 4.0}, Box(3, 4.0)),
        ({"name": "box:3", "width": 5}, Box(5)),
        ({"name": "box", "depth": None}, Box()),
    ],
)
def test_a_table(table, value):
    decoded = SHAPES.decode(table)
    assert decoded == value
    if isinstance(decoded, Square):
        assert type(decoded.side) is float


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("bx", "shape: unknown shape 'bx'; did you mean 'box'? known: box, dot, square"),
        ("zzzz", "shape: unknown shape 'zzzz'; known: box, dot, square"),
        ("", "shape: unknown shape ''; known: box, dot, square"),
        ("square", "shape: 'square' needs side"),
        ("square:x", "shape.side must be a number, not 'x'"),
        ("square:1,2", "shape: 'square' takes at most 1 values (side), got '1,2'"),
        ("dot:1", "shape: 'dot' takes at most 0 values (none), got '1'"),
        ("dot:x=1", "shape.x: unknown key of 'dot'; it takes none"),
        ("box:with=3", "shape.with: unknown key of 'box'; did you mean 'width'? "
         "known: colour, depth, height, label, solid, width"),
        ("box:0", "shape.width must be at least 1, not 0"),
        ("box:1.5", "shape.width must be a whole number, not '1.5'"),
        ("box:width=none", "shape.width must be a whole number, not none"),
        ("box:solid=maybe", "shape.solid must be true or false, not 'maybe'"),
        (3, "shape must be a name or a table, not 3"),
        ([], "shape must be a name or a table, not []"),
        ({}, "shape needs a name; known: box, dot, square"),
        ({"name": 3}, "shape needs a name; known: box, dot, square"),
        ({"name": "square", "side": "2"}, "shape.side must be a number, not '2'"),
        ({"name": "box", "width": 2.0}, "shape.width must be a whole number, not 2.0"),
        ({"name": "box", "width": True}, "shape.width must be a whole number, not True"),
        ({"name": "box", "height": False}, "shape.height must be a number, not False"),
        ({"name": "box", "solid": 1}, "shape.solid must be true or false, not 1"),
        ({"name": "box", "label": 1}, "shape.label must be text, not 1"),
        ({"name": "box", "width": None}, "shape.width must be a whole number, not none"),
        ({"name": "box", "width": [1]}, "shape.width must be a whole number, not [1]"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_its_place_and_the_nearest_right_name(wrong, message):
    with pytest.raises(UsageError) as refused:
        SHAPES.decode(wrong)
    assert str(refused.value) == message
    assert refused.value.code == 2


def test_the_place_goes_before_the_key():
    with pytest.raises(UsageError, match=r"^my\.toml\.frame\.width must be at least 1, not 0$"):
        build(Picture, {"frame": {"width": 0}}, "my.toml")
    with pytest.raises(UsageError, match=r"^my\.toml\.shape: unknown shape 'bx'"):
        build(Picture, {"shape": "bx"}, "my.toml")
    with pytest.raises(UsageError, match=r"^frame must be a table, not 3$"):
        build(Picture, {"frame": 3}, "")
    with pytest.raises(UsageError, match=r"^fram: unknown key; did you mean 'frame'\? known: "):
        build(Picture, {"fram": {}}, "")


def test_a_choice_that_may_be_missing_may_be_none():
    assert build(Picture, {"other": "none"}, "").other is None
    assert build(Picture, {"other": None}, "").other is None
    assert build(Picture, {"other": "dot"}, "").other == Dot()
    with pytest.raises(UsageError, match=r"^shape: unknown shape 'none'"):
        build(Picture, {"shape": "none"}, "")


FLOATS = st.floats(allow_nan=False)
BOXES = st.builds(
    Box, st.integers(1), FLOATS, st.text(), st.booleans(), st.none() | FLOATS, colour=st.text()
)
VALUES = st.one_of(st.builds(Square, FLOATS), BOXES, st.just(Dot()))


@given(VALUES)
def test_encode_and_decode_are_inverses(value):
    assert SHAPES.decode(SHAPES.encode(value)) == value


@given(VALUES, BOXES, st.none() | VALUES)
def test_plain_and_build_are_inverses_through_every_level(shape, frame, other):
    picture = Picture(shape, frame, other)
    assert build(Picture, plain(picture), "") == picture


@given(st.builds(Box, st.integers(1, 10**6), st.integers(-99, 99).map(float)))
def test_the_short_form_of_plain_values_is_read_back(box):
    assert SHAPES.parse(SHAPES.short(box)) == box


def test_the_short_form_for_a_heading():
    assert SHAPES.short(Dot()) == "dot"
    assert SHAPES.short(Square(0.5)) == "square:side=0.5"
    assert SHAPES.short(Box(depth=2.0)) == (
        "box:width=2,height=1.5,label=box,solid=False,depth=2,colour=red"
    )


def test_a_whole_number_for_a_number_is_written_as_it_is_read():
    """1 and 1.0 are equal, so they must have one name and one file."""
    assert repr(plain(Square(2))) == repr(plain(Square(2.0))) == "{'side': 2.0}"
    assert repr(plain(Box(depth=3))["depth"]) == "3.0"
    assert repr(plain(Box(3))["width"]) == "3"


def test_a_stranger_is_not_of_the_family():
    with pytest.raises(UsageError, match=r"^shape: int is not one of the family$"):
        SHAPES.encode(3)


@pytest.mark.parametrize(
    "item, hint, value",
    [
        (1, float, 1.0),
        (Text("1"), float, 1.0),
        (Text("1"), int, 1),
        (Text("1"), str, "1"),
        (Text("1"), int | None, 1),
        (Text("none"), int | None, None),
        (None, str | None, None),
        (Text("none"), str | None, None),
        (Text("inf"), float, float("inf")),
    ],
)
def test_plain_types(item, hint, value):
    converted = convert(item, hint, "here")
    assert converted == value and type(converted) is type(value)
