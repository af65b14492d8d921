"""A schema is what it says: reads back the same, hashes its meaning, and names every mistake."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedsys.errors import UsageError
from fedsys.tables import Column, Label, Missing, Schema, read_schema, schema_of, schema_toml
from fedsys.tables.schema_file import write_schema
from tests.tables.conftest import SCHEMA, told

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=9)


@st.composite
def columns(draw, name):
    type_ = draw(st.sampled_from(["number", "integer", "category", "yes/no"]))
    options = {"unit": draw(NAMES | st.just("")), "description": draw(st.text(max_size=9))}
    if type_ == "category":
        options["categories"] = tuple(draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)))
        options["other"] = draw(st.booleans())
        rules = [Missing(), Missing("drop"), Missing("category", options["categories"][0])]
        rules += [Missing("other")] if options["other"] else []
    elif type_ == "yes/no":
        rules = [Missing(), Missing("drop"), Missing("constant", draw(st.sampled_from([0.0, 1.0])))]
    else:
        low = draw(st.integers(-1000, 1000))
        rules = [Missing(), Missing("drop"), Missing("mean"), Missing("constant", float(low))]
        if draw(st.booleans()):
            options["range"] = (low, low + draw(st.floats(1, 1e6)))
            options["outside"] = draw(st.sampled_from(["refuse", "drop", "clip"]))
            rules.append(Missing("median"))
    try:
        return Column(name, type_, missing=draw(st.sampled_from(rules)), **options)
    except UsageError:  # a category such as '1.0' or white space that is none here
        return Column(name, "number")


@st.composite
def schemas(draw):
    names = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    classes = draw(st.none() | st.just(("0", "1", "2")) | st.just(("paid", "late")))
    return Schema(
        label=Label(names[0], classes, missing=draw(st.sampled_from(["refuse", "drop"]))),
        columns=tuple(draw(columns(name)) for name in names[1:]),
        extra=draw(st.sampled_from(["ignore", "refuse"])),
        spellings=tuple(draw(st.lists(st.text(max_size=4), max_size=3))),
        minimum=draw(st.integers(1, 1000)),
        title=draw(st.text(max_size=9)),
    )


@given(schemas())
@example(Schema(Label("late"), (Column("1.0", "number"),)))  # a column may be called so
@settings(max_examples=150, deadline=None)
def test_what_is_written_reads_back_the_same(schema):
    again = schema_of(schema_toml(schema))
    assert again == schema
    assert again.hash == schema.hash
    assert len(schema.inputs) == sum(column.width for column in schema.columns)


def test_a_file_reads_back_the_same(tmp_path, schema):
    write_schema(schema, tmp_path / "schema.toml")
    assert read_schema(tmp_path / "schema.toml") == schema


def test_the_inputs_are_in_the_order_of_the_schema(schema):
    assert schema.inputs == (
        *("age", "income", "town=Ulm", "town=Bern", "town=Linz", "town=(other)"),
        *("grade=1", "grade=2", "grade=3", "member"),
    )


def test_all_that_changes_a_models_inputs_changes_the_hash(schema):
    one, *rest = schema.columns
    changed = [
        replace(schema, columns=(*rest, one)),
        replace(schema, columns=tuple(rest)),
        replace(schema, columns=(replace(one, name="AGE"), *rest)),
        replace(schema, columns=(replace(one, type="number"), *rest)),
        replace(schema, columns=(replace(one, unit="months"), *rest)),
        replace(schema, columns=(replace(one, range=(18, 100)), *rest)),
        replace(schema, columns=(replace(one, outside="clip"), *rest)),
        replace(schema, columns=(replace(one, missing=Missing("mean")), *rest)),
        replace(schema, columns=(*schema.columns[:2], replace(schema.columns[2], categories=(
            "Bern", "Ulm", "Linz")), *schema.columns[3:])),
        replace(schema, extra="refuse"),
        replace(schema, spellings=("?",)),
        replace(schema, minimum=11),
        replace(schema, label=Label("default", missing="drop")),
        replace(schema, label=Label("default", ("0", "1"))),
    ]  # fmt: skip
    assert len({schema.hash, *(other.hash for other in changed)}) == len(changed) + 1


def test_words_for_people_and_spelling_of_numbers_do_not_change_the_hash(schema):
    one, *rest = schema.columns
    assert replace(schema, title="EU").hash == schema.hash
    assert replace(schema, columns=(replace(one, description="x"), *rest)).hash == schema.hash
    assert schema_of(SCHEMA.replace("[18, 99]", "[18.0, 99.0]")).hash == schema.hash
    assert schema_of(SCHEMA.replace("[1, 2, 3]", '["1", "2", "3"]')).hash == schema.hash
    tables = SCHEMA.split("[columns.age]")
    assert schema_of(tables[0] + "# a remark\n[columns.age]" + tables[1]).hash == schema.hash


def test_the_hash_stays_as_it_is_from_version_to_version(schema):
    """Banks compare hashes across releases: change the version in the digest with the meaning."""
    assert schema.hash[:16] == "713366fd9b3f12f0"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('column = "default"', "", "label.column: is needed"),
        ('classes = "binary"', 'classes = "two"', "label.classes: must be 'binary' or a list"),
        ('classes = "binary"', "classes = [1]", "label.classes: needs two or more"),
        ('classes = "binary"', 'classes = "binary"\nmissing = "mean"', "label.missing: unknown"),
        ('column = "default"', 'column = "age"', "label.column: 'age' is one of the columns too"),
        ('type = "integer"', 'type = "integr"', "columns.age.type: unknown 'integr'; did you mean"),
        ('type = "integer"', "type = 3", "columns.age.type: must be text"),
        ('type = "integer"', "", "columns.age.type: is needed"),
        ("range = [18, 99]", "range = [99, 18]", "columns.age.range: the low end 99 is not below"),
        ("range = [18, 99]", "range = [18]", "columns.age.range: must be two numbers"),
        ("range = [18, 99]", "range = [nan, 99]", "columns.age.range: must be two numbers"),
        ("range = [18, 99]", "range = [18, inf]", "columns.age.range: must be two numbers"),
        ("range = [18, 99]", "", "columns.age.missing: a median needs a range"),
        ('missing = "median"', 'missing = "mode"', "columns.age.missing: unknown 'mode'"),
        ('missing = "median"', 'missing = "constant"', "columns.age.missing: 'constant' needs a"),
        ('missing = "median"', "missing = { constant = 5 }", "columns.age.missing.constant: 5 is"),
        ('missing = "median"', "missing = { konstant = 5 }", "columns.age.missing.konstant: unkn"),
        ('missing = "median"', "missing = 5", "columns.age.missing: must be a rule"),
        ('outside = "clip"', 'outside = "cut"', "columns.income.outside: unknown 'cut'"),
        ("range = [0, 20000]", "", "columns.income.outside: needs a range"),
        ('["Ulm", "Bern", "Linz"]', "[]", "columns.town.categories: list every category"),
        (
            '["Ulm", "Bern", "Linz"]',
            '["Ulm", "Ulm"]',
            "columns.town.categories: 'Ulm' is there twi",
        ),
        ('["Ulm", "Bern", "Linz"]', '["Ulm", 1.5]', "columns.town.categories: must be texts"),
        ('["Ulm", "Bern", "Linz"]', '["Ulm", "1.0"]', "columns.town.categories: write '1.0' as"),
        ('["Ulm", "Bern", "Linz"]', '["Ulm", " a"]', "columns.town.categories: ' a' is no name"),
        ("other = true", "other = 1", "columns.town.other: must be true or false"),
        ("other = true", "other = false", "columns.town.missing: 'other' needs other = true"),
        ("{ category = 2 }", "{ category = 4 }", "columns.grade.missing.category: unknown '4'"),
        ("{ category = 2 }", '"mean"', "columns.grade.missing: unknown 'mean'"),
        ("{ constant = false }", "{ constant = 2 }", "columns.member.missing.constant: must be tr"),
        ("[columns.member]", '[columns."a b"]\ncolour = 1', 'columns."a b".colour: unknown key'),
        ("[columns.member]", '[columns." "]', "columns: ' ' is no name"),
        ("minimum = 10", "minimum = 0", "minimum: must be 1 or more"),
        ("minimum = 10", "minimum = 1.5", "minimum: must be a whole number"),
        ("minimum = 10", 'extra = "allow"', "extra: unknown 'allow'"),
        ("minimum = 10", "minimun = 10", "minimun: unknown key; did you mean 'minimum'?"),
        ("minimum = 10", "missing_values = [1]", "missing_values: must be texts"),
        ("[label]", "[labels]", "labels: unknown key; did you mean 'label'?"),
        ("[columns.age]", "[columns.age", "not TOML"),
        ("[columns.age]", "[columns.income]", "not TOML"),
    ],
)
def test_every_mistake_is_named_with_its_place(old, new, said):
    assert old in SCHEMA
    with pytest.raises(UsageError) as caught:
        schema_of(SCHEMA.replace(old, new, 1), "federation.toml")
    message = str(caught.value)
    assert message.startswith(f"federation.toml: {said}"), message
    assert "\n" not in message


def test_a_schema_without_columns_or_label_is_refused():
    with pytest.raises(UsageError, match="names no column to learn from"):
        schema_of(SCHEMA.partition("[columns.age]")[0])
    with pytest.raises(UsageError, match="label: is needed"):
        schema_of(SCHEMA.partition("[label]")[0])
    with pytest.raises(UsageError, match=r"columns: must be a table"):
        schema_of("columns = 3\n" + SCHEMA.partition("[columns.age]")[0])


def test_what_is_no_file_of_a_schema_is_one_line(tmp_path):
    for name, content, said in (
        ("folder", None, "cannot be read"),
        ("none.toml", None, "no such file"),
        ("bytes.toml", b"\xff\xfe\x00", "not text in UTF-8"),
        ("large.toml", b"# " + b"x" * (5 * 2**20), "too large"),
    ):
        path = tmp_path / name
        if name == "folder":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            read_schema(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["number", "category", "mean", "binary", "drop"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip
LINES = SCHEMA.strip().splitlines()


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text_is_a_schema_or_one_line(text):
    refused_in_one_line(text)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_schema_with_any_line_changed_is_a_schema_or_one_line(data):
    """Lines are swapped, doubled, cut, or given any value."""
    import tomli_w

    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(st.sampled_from(["swap", "double", "cut", "value"]))
        if how == "swap":
            to = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[to] = lines[to], lines[at]
        elif how == "double":
            lines.insert(at, lines[at])
        elif how == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif "=" in lines[at]:
            value = data.draw(VALUES.filter(lambda value: value is not None))
            try:
                written = tomli_w.dumps({lines[at].partition("=")[0].strip(): value})
            except TypeError:  # TOML has no null
                continue
            lines[at] = written
    refused_in_one_line("\n".join(lines))


@pytest.mark.parametrize("text", ["x = " + "[" * 10_000, "x = " + "9" * 10_000, "x = 1e999"])
def test_texts_that_break_parsers_are_one_line(text):
    refused_in_one_line(text)


def refused_in_one_line(text):
    def attempt():
        schema = schema_of(text)
        assert schema_of(schema_toml(schema)) == schema

    assert "\n" not in told(attempt)
