"""What Airflow 3 tells its UI of the connection form: up to 3.1 from the class methods, then from the metadata."""

from __future__ import annotations

import json
import subprocess
import sys

from airflow_provider_emqx.get_provider_info import get_provider_info

FIELDS = get_provider_info()["connection-types"][0]["conn-fields"]

#: in a process of its own, as in the API server: Airflow 3.1 shows no fields of hooks that were loaded before
PROGRAM = """
import json
import warnings
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    (form,) = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "emqx"]
print()
print(json.dumps([str(warning.message) for warning in told if "mqx" in str(warning.message)]))
print(form.model_dump_json())
"""


def test_the_form_has_every_field() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    warnings, form = map(json.loads, done.stdout.splitlines()[-2:])
    assert warnings == []
    assert form["hook_name"] == "EMQX"
    # Airflow 3.0 shows fields of a provider only where its FAB provider is installed
    assert form["standard_fields"]["login"]["title"] == "API key"
    assert form["standard_fields"]["url_schema"]["hidden"]
    assert set(form["extra_fields"]) == set(FIELDS)
    for name, shown in form["extra_fields"].items():
        field = FIELDS[name]
        assert shown["schema"]["title"] == field["label"]
        assert shown["description"] == field["description"]
        # numbers are text in the class methods
        assert str(shown["value"]) == str(field["schema"].get("default"))
        assert "null" in shown["schema"]["type"]
        assert shown["schema"].get("enum") == field["schema"].get("enum")
