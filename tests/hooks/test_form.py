from __future__ import annotations

import warnings

import pytest

from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.hooks.emqx import EmqxHook

KIND = get_provider_info()["connection-types"][0]


def test_labels_and_hidden_fields_are_those_of_the_metadata() -> None:
    behaviour = EmqxHook.get_ui_field_behaviour()
    assert behaviour["relabeling"] == KIND["ui-field-behaviour"]["relabeling"]
    assert behaviour["hidden_fields"] == KIND["ui-field-behaviour"]["hidden-fields"]


def test_airflow_can_test_a_connection_and_warns_of_nothing() -> None:
    from airflow.providers_manager import ProvidersManager

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        hook = ProvidersManager().hooks["emqx"]
    assert [str(warning.message) for warning in told if "mqx" in str(warning.message)] == []
    assert hook is not None
    assert hook.connection_testable


@pytest.mark.parametrize("name", sorted(KIND["conn-fields"]))
def test_every_field_of_the_old_form_has_label_default_and_description(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _widgets(monkeypatch)[name]
    field = KIND["conn-fields"][name]
    default = field["schema"].get("default")
    assert made["label"] == field["label"]
    assert made["description"] == field["description"]
    assert made["default"] == (default if isinstance(default, bool) or default is None else str(default))


def _widgets(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, object]]:
    """The fields, with stand-ins for the libraries of a form that newer Airflows no longer have."""
    import sys
    from types import ModuleType

    modules = {name: ModuleType(name) for name in ("flask_appbuilder", "flask_appbuilder.fieldwidgets", "wtforms",
                                                   "wtforms.validators")}  # fmt: skip
    widgets = modules["flask_appbuilder.fieldwidgets"]
    widgets.BS3TextFieldWidget = widgets.BS3PasswordFieldWidget = object  # type: ignore[attr-defined]
    for name in ("BooleanField", "PasswordField", "StringField"):
        setattr(modules["wtforms"], name, dict)
    modules["wtforms.validators"].Optional = object  # type: ignore[attr-defined]
    modules["wtforms.validators"].any_of = list  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return EmqxHook.get_connection_form_widgets()
