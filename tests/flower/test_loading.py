import sys
from types import SimpleNamespace

import pytest

from fedsys.errors import UsageError
from fedsys.flower.app import loading
from fedsys.flower.app.project import Project


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    return Project(folder, "app", "part:one", "part:two", {}, 2, "")


def test_frameworks_that_an_app_imports_late_are_loaded_before_it_starts(
    project, tmp_path, monkeypatch
):
    names = ("late_in_a_function", "of_an_environment", "of_nobody", "not_installed")
    monkeypatch.setattr(loading, "FRAMEWORKS", names)
    for name in names[:3]:
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    (project.folder / "deep").mkdir()
    text = "def f():\n    from late_in_a_function.part import x\n    import not_installed\n"
    (project.folder / "deep/task.py").write_text(text)
    (project.folder / "broken.py").write_text("x = (")
    packages = project.folder / ".venv/lib/site-packages"
    packages.mkdir(parents=True)
    (packages / "other.py").write_text("import of_an_environment")
    try:
        with loading.load(project) as found:
            found.frameworks()
        assert [name for name in names if name in sys.modules] == ["late_in_a_function"]
    finally:
        sys.modules.pop("late_in_a_function", None)


def test_modules_of_an_app_are_forgotten_and_those_of_its_environment_kept(project):
    packages = project.folder / "env/site-packages"
    packages.mkdir(parents=True)
    (packages / "kept_by_all.py").write_text("")
    (project.folder / "part.py").write_text(
        f"import sys; sys.path.insert(0, {str(packages)!r}); import kept_by_all, helper; one = 1"
    )
    (project.folder / "helper.py").write_text("")
    try:
        with loading.load(project) as found:
            assert found("serverapp", "part:one", int) == 1
            assert "helper" in sys.modules
        assert "helper" not in sys.modules and "part" not in sys.modules
        assert "kept_by_all" in sys.modules
    finally:
        sys.modules.pop("kept_by_all", None)
        sys.path.remove(str(packages))


def test_a_reference_may_have_dots_and_is_told_where_it_breaks(project):
    (project.folder / "part.py").write_text(
        "from types import SimpleNamespace\nouter = SimpleNamespace(inner=SimpleNamespace(one=1))"
    )
    with loading.load(project) as found:
        assert found("serverapp", "part:outer.inner.one", int) == 1
        with pytest.raises(UsageError, match=r"part has no 'outer.other.one'; it makes no int"):
            found("serverapp", "part:outer.other.one", int)


def test_a_package_that_lacks_something_is_not_called_missing_itself(project):
    (project.folder / "package").mkdir()
    (project.folder / "package/__init__.py").write_text("import nothing_like_that")
    with loading.load(project) as found, pytest.raises(ModuleNotFoundError) as raised:
        found("serverapp", "package.server:app", int)
    assert raised.value.name == "nothing_like_that"
    place = loading.place_of(raised.value, project.folder)
    assert str(place) == "package/__init__.py, line 1"


def test_where_an_error_came_from_is_the_last_line_of_the_apps_own(project):
    path = project.folder / "mine.py"
    path.write_text("import json\n\ndef f():\n    json.loads('{')\n")
    space = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    with pytest.raises(ValueError, match="Expecting") as raised:
        space["f"]()
    assert str(loading.place_of(raised.value, project.folder)) == "mine.py, line 4"
    elsewhere = loading.place_of(raised.value, project.folder / "other")
    assert elsewhere.file == "decoder.py"
    nowhere = loading.place_of(ValueError(), project.folder)
    assert nowhere == loading.Place(str(project.folder), 0)


def test_other_things_in_the_list_of_modules_do_no_harm(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "odd_one", None)
    monkeypatch.setitem(sys.modules, "odder", SimpleNamespace(__file__=3))
    with loading.load(project):
        pass
    assert "odd_one" in sys.modules and "odder" in sys.modules
