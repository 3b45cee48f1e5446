"""What Airflow 3 tells its UI of the connection form: up to 3.2 from the class methods, then from the metadata."""

from __future__ import annotations

import warnings

from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

from airflow_provider_emqx.get_provider_info import get_provider_info

FIELDS = get_provider_info()["connection-types"][0]["conn-fields"]


def test_the_form_has_every_field() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (form,) = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "emqx"]
    assert [str(warning.message) for warning in told if "mqx" in str(warning.message)] == []
    assert form.hook_name == "EMQX"
    # Airflow 3.0 shows fields of its own only where its FAB provider is installed
    assert form.standard_fields is not None
    assert form.standard_fields.login.title == "API key"
    assert form.standard_fields.url_schema.hidden
    assert form.extra_fields is not None
    assert set(form.extra_fields) == set(FIELDS)
    for name, shown in form.extra_fields.items():
        field = FIELDS[name]
        default = field["schema"].get("default")
        assert shown["schema"]["title"] == field["label"]
        assert shown["description"] == field["description"]
        # numbers are text in the class methods
        assert str(shown["value"]) == str(default)
        assert "null" in shown["schema"]["type"]
        assert shown["schema"].get("enum") == field["schema"].get("enum")
