from __future__ import annotations

import pytest

from carvana_ens.errors import PluginError
from carvana_ens.testing import declared_models

HEAD = '[project.entry-points."carvana_ens.models"]\n'


def test_models_are_imported_from_where_the_file_says(fake_site, tmp_path):
    source = "from carvana_ens import Model\nclass One(Model): pass\nclass Two(One): pass\n"
    fake_site.add("declared", {}, declared=source)
    (tmp_path / "pyproject.toml").write_text(f'{HEAD}one = "declared:One"\nnumber-two = "declared:Two"\n')
    models = declared_models(tmp_path / "pyproject.toml")
    assert {name: model.__qualname__ for name, model in models.items()} == {"one": "One", "number-two": "Two"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[project]\n", r"pyproject.toml registers no model: add \[project.entry-points"),
        (HEAD, "registers no model"),
        (f'{HEAD}a = "no_such_module_at_all:A"\n', r"a = no_such_module_at_all:A leads nowhere \(No module named"),
        (f'{HEAD}a = "pathlib:Pat"\n', r"leads nowhere \(module 'pathlib' has no attribute 'Pat'"),
        (f'{HEAD}a = ":A"\n', r"leads nowhere \(Empty module name"),
        (f'{HEAD}a = "pathlib:Path"\n', "pathlib:Path is no class derived from carvana_ens.Model"),
        (f'{HEAD}a = "pathlib:os"\n', "pathlib:os is no class"),
    ],
)
def test_files_that_register_no_model_are_refused(text, words, tmp_path):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(PluginError, match=words):
        declared_models(tmp_path / "pyproject.toml")
