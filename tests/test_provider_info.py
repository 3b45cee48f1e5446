"""What Airflow is told about the provider is complete, correctly spelt, and true."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import (
    BaseHook,
    BaseNotifier,
    BaseOperator,
    BaseOperatorLink,
    BaseSensorOperator,
)
from airflow.triggers.base import BaseTrigger
from packaging.utils import canonicalize_name

import airflow_provider_emqx
from airflow_provider_emqx.get_provider_info import get_provider_info

DISTRIBUTION = "airflow-provider-emqx"
INFO = get_provider_info()
CONNECTION_TYPE = INFO["connection-types"][0]
FIELDS = CONNECTION_TYPE["conn-fields"]

#: section of the metadata -> the package that holds such modules, the class that makes a module one of them
SECTIONS: dict[str, tuple[str, type]] = {
    "hooks": ("hooks", BaseHook),
    "operators": ("operators", BaseOperator),
    "sensors": ("sensors", BaseSensorOperator),
    "triggers": ("triggers", BaseTrigger),
}


def schema(name: str) -> dict[str, Any]:
    return json.loads((Path(airflow.__path__[0]) / name).read_text())


def modules(package: str) -> Iterator[ModuleType]:
    """Import every module below a part of the package, if that part exists."""
    name = f"{airflow_provider_emqx.__name__}.{package}"
    if importlib.util.find_spec(name) is None:
        return
    for found in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        yield importlib.import_module(found.name)


def classes(module: ModuleType, base: type) -> list[str]:
    """Return the paths of the classes of this kind that the module defines for users, so no base classes."""
    return [
        f"{module.__name__}.{name}"
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not name.startswith(("_", "Base"))
    ]


def resolve(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_module_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import airflow_provider_emqx.get_provider_info as module; module.get_provider_info()\n"
        "print(sorted(name for name in set(sys.modules) - before if 'airflow' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['airflow_provider_emqx', 'airflow_provider_emqx.get_provider_info']"


def test_the_entry_point_of_the_installed_package_leads_here() -> None:
    (entry,) = importlib.metadata.distribution(DISTRIBUTION).entry_points.select(
        group="apache_airflow_provider"
    )
    assert entry.load()() == INFO


def test_the_package_name_is_the_canonical_name_of_the_distribution() -> None:
    assert INFO["package-name"] == canonicalize_name(DISTRIBUTION)


def test_the_installed_version_is_the_version_of_the_source() -> None:
    assert importlib.metadata.version(DISTRIBUTION) == airflow_provider_emqx.__version__


def test_no_key_is_misspelt() -> None:
    """Airflow accepts and ignores unknown keys, so the exact sets are written down here."""
    others = ("asset-uris", "config", "extra-links", "notifications", "queues", "transfers")
    sections = {key for key in (*SECTIONS, *others) if key in INFO}
    assert set(INFO) == {"package-name", "name", "description", "integrations", "connection-types", *sections}
    assert set(CONNECTION_TYPE) == {
        "connection-type",
        "hook-class-name",
        "hook-name",
        "ui-field-behaviour",
        "conn-fields",
    }
    for field in FIELDS.values():
        assert set(field) == {"label", "description", "schema"}
        assert set(field["schema"]) <= {"type", "enum", "default", "minimum", "pattern", "format"}


def test_the_metadata_fits_the_schema_that_airflow_checks_at_run_time() -> None:
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


@pytest.mark.parametrize("key", sorted(set(INFO) - {"integrations"}))
def test_each_section_fits_the_strict_schema_of_official_providers(key: str) -> None:
    """All but the integrations, whose tags and logos are Airflow's own lists."""
    whole = schema("provider.yaml.schema.json")
    jsonschema.validate(INFO[key], {**whole["properties"][key], "definitions": whole.get("definitions", {})})


def test_every_extra_of_the_connection_has_a_field() -> None:
    assert list(FIELDS) == [
        "api_version",
        "emqx_version",
        "authenticator",
        "namespace",
        "verify",
        "connect_timeout",
        "read_timeout",
        "attempts",
        "deadline",
        "rate_limit",
        "proxy",
        "allow_http",
        "read_only",
        "mqtt_url",
        "mqtt_username",
        "mqtt_password",
    ]


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_the_form_may_stay_empty_and_says_its_default(name: str) -> None:
    field = FIELDS[name]
    assert "null" in field["schema"]["type"], "Airflow's form would demand a value"
    assert "Default: " in field["description"]
    default = field["schema"].get("default")
    if default is None:
        return
    jsonschema.validate(default, field["schema"])
    said = field["description"].rpartition("Default: ")[2].removesuffix(".")
    assert said == (default if isinstance(default, str) else json.dumps(default))


def test_labels_are_unique_because_error_messages_quote_them() -> None:
    labels = [field["label"] for field in FIELDS.values()]
    assert len(set(labels)) == len(labels)


def test_the_hook_of_the_connection_type_is_made_for_it() -> None:
    hook = resolve(CONNECTION_TYPE["hook-class-name"])
    assert hook.conn_type == CONNECTION_TYPE["connection-type"] == "emqx"
    assert hook.hook_name == CONNECTION_TYPE["hook-name"] == "EMQX"
    assert hook.conn_name_attr in inspect.signature(hook).parameters
    assert callable(hook.test_connection)


@pytest.mark.parametrize("section", SECTIONS)
def test_exactly_the_modules_that_define_such_classes_are_listed(section: str) -> None:
    package, base = SECTIONS[section]
    listed = [name for entry in INFO.get(section, ()) for name in entry["python-modules"]]
    assert sorted(listed) == sorted(module.__name__ for module in modules(package) if classes(module, base))


def test_exactly_the_links_that_exist_are_listed() -> None:
    links = importlib.import_module("airflow_provider_emqx.links")
    assert sorted(INFO["extra-links"]) == sorted(classes(links, BaseOperatorLink))


def test_exactly_the_notifiers_and_transfers_that_exist_are_listed() -> None:
    assert sorted(INFO.get("notifications", ())) == sorted(
        reduce(list.__add__, (classes(module, BaseNotifier) for module in modules("notifications")), [])
    )
    assert sorted(entry["python-module"] for entry in INFO.get("transfers", ())) == sorted(
        module.__name__ for module in modules("transfers") if classes(module, BaseOperator)
    )


def test_every_module_of_the_package_can_be_imported() -> None:
    for found in pkgutil.walk_packages(airflow_provider_emqx.__path__, "airflow_provider_emqx."):
        # the queues need the extra messaging: tests/queues/
        if not found.name.endswith("__main__") and ".queues." not in found.name:
            importlib.import_module(found.name)


def test_airflow_lists_the_provider_with_its_version() -> None:
    from airflow.providers_manager import ProvidersManager

    assert ProvidersManager().providers[DISTRIBUTION].version == airflow_provider_emqx.__version__
