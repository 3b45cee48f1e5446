"""The connection form for Airflow before 3.2, which gets it from the hook's class; later ones read the metadata."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.get_provider_info import get_provider_info


def form_widgets() -> dict[str, Any]:
    """Return the fields of the form from the metadata. Needs Flask-AppBuilder."""
    from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found]
        BS3PasswordFieldWidget,
        BS3TextFieldWidget,
    )
    from wtforms import BooleanField, PasswordField, StringField  # type: ignore[import-untyped]
    from wtforms.validators import Optional, any_of  # type: ignore[import-untyped]

    fields: dict[str, Any] = {}
    for name, field in _connection_type()["conn-fields"].items():
        schema, text = field["schema"], {"label": field["label"], "description": field["description"]}
        if "boolean" in schema["type"]:
            fields[name] = BooleanField(default=schema.get("default", False), **text)
            continue
        if schema.get("format") == "password":
            fields[name] = PasswordField(
                default=None, validators=[Optional()], widget=BS3PasswordFieldWidget(), **text
            )
            continue
        # numbers as text: the form has no field for fractions
        check = [any_of(schema["enum"])] if "enum" in schema else []
        default = schema.get("default")
        fields[name] = StringField(
            default=None if default is None else str(default),
            validators=[Optional(), *check],
            widget=BS3TextFieldWidget(),
            **text,
        )
    return fields


def field_behaviour() -> dict[str, Any]:
    """Return the metadata's behaviour of Airflow's own fields, in the dialect of the method."""
    return {name.replace("-", "_"): value for name, value in _connection_type()["ui-field-behaviour"].items()}


def _connection_type() -> dict[str, Any]:
    return get_provider_info()["connection-types"][0]  # type: ignore[no-any-return]
