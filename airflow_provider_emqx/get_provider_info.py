"""
Metadata about this provider for Airflow.

Every Airflow component calls this at start, so this module imports nothing. Airflow ignores unknown keys,
including misspelled ones: ``tests/test_provider_info.py`` checks the dictionary against Airflow's strict schema.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_INTEGRATION = "EMQX"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the kebab-case dialect of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-emqx",
        "name": "EMQX",
        "description": (
            "Provision device users in bulk, run maintenance and wait for devices on the MQTT broker "
            "`EMQX <https://www.emqx.com/>`__\n"
        ),
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.emqx.com/",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_provider_emqx.hooks.emqx"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_emqx.operators.acl",
                    "airflow_provider_emqx.operators.auth",
                    "airflow_provider_emqx.operators.bans",
                    "airflow_provider_emqx.operators.clients",
                    "airflow_provider_emqx.operators.cluster",
                    "airflow_provider_emqx.operators.commands",
                    "airflow_provider_emqx.operators.topics",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_emqx.sensors.clients",
                    "airflow_provider_emqx.sensors.cluster",
                    "airflow_provider_emqx.sensors.messages",
                    "airflow_provider_emqx.sensors.topics",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_emqx.triggers.commands",
                    "airflow_provider_emqx.triggers.emqx",
                    "airflow_provider_emqx.triggers.messages",
                ],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "Common SQL",
                "target-integration-name": _INTEGRATION,
                "python-module": "airflow_provider_emqx.transfers.sql_to_emqx",
            }
        ],
        "notifications": ["airflow_provider_emqx.notifications.emqx.EmqxPublishNotifier"],
        "queues": ["airflow_provider_emqx.queues.emqx.EmqxMessageQueueProvider"],
        "extra-links": [
            "airflow_provider_emqx.links.EmqxDashboardLink",
            "airflow_provider_emqx.links.EmqxResultLink",
        ],
        "asset-uris": [
            {
                "schemes": ["emqx"],
                "handler": "airflow_provider_emqx.assets.sanitize_uri",
                "factory": "airflow_provider_emqx.assets.create_asset",
                "to_openlineage_converter": "airflow_provider_emqx.assets.convert_asset_to_openlineage",
            }
        ],
        "config": {
            "emqx": {
                "description": "Settings of the provider for EMQX.",
                "options": {
                    "result_tab": {
                        "description": (
                            "Show the page of the result also as a tab of each task instance, of all tasks of all "
                            "DAGs. Airflow 3.1.8 and newer; a setting of the API server."
                        ),
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    }
                },
            }
        },
        "connection-types": [
            {
                "connection-type": "emqx",
                "hook-class-name": "airflow_provider_emqx.hooks.emqx.EmqxHook",
                "hook-name": "EMQX",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {
                        "host": "API address",
                        "port": "API port",
                        "login": "API key",
                        "password": "API secret",
                    },
                    "placeholders": {
                        "host": "https://broker.example.com:8443/api/v5",
                        "port": "only if the address has none",
                        "login": "API key, AppID or App ID",
                        "password": "the secret shown when the key was created",
                    },
                },
                "conn-fields": _CONNECTION_FIELDS,
            }
        ],
    }


# Extras of the connection. A type without "null" would make Airflow's form demand a value.
_CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "api_version": {
        "label": "API version",
        "description": (
            "Generation of the management API: v4 (EMQX 4.x), v5 (EMQX 5 and later, Serverless). "
            "auto asks the broker. Default: auto."
        ),
        "schema": {"type": ["string", "null"], "enum": ["auto", "v4", "v5"], "default": "auto"},
    },
    "emqx_version": {
        "label": "EMQX version",
        "description": (
            "Version of the broker, such as 5.8.9. Only needed where the API key may not read it; "
            "an unknown version costs speed, never correctness. Default: asked of the broker."
        ),
        "schema": {"type": ["string", "null"], "pattern": r"^v?[0-9]+\.[0-9]+(\.[0-9]+)?.*$"},
    },
    "authenticator": {
        "label": "Authenticator",
        "description": (
            "Id of the authenticator that holds the users, v5 only. Default: password_based:built_in_database."
        ),
        "schema": {"type": ["string", "null"], "default": "password_based:built_in_database"},
    },
    "namespace": {
        "label": "Namespace",
        "description": (
            "Namespace that users and ACL rules belong to, EMQX 6.1 and later. Default: none, the global one."
        ),
        "schema": {"type": ["string", "null"]},
    },
    "verify": {
        "label": "Verify TLS certificate",
        "description": (
            "true: against the public certificate authorities. A path: against the CA certificates in this file "
            "(PEM), on every worker and triggerer. false: not at all, which lets anyone on the way "
            "read the API secret. Default: true."
        ),
        "schema": {"type": ["string", "null"], "default": "true"},
    },
    "connect_timeout": {
        "label": "Connect timeout (seconds)",
        "description": "Longest wait for a connection to the broker, in seconds. Default: 5.",
        "schema": {"type": ["number", "null"], "minimum": 0.1, "default": 5},
    },
    "read_timeout": {
        "label": "Read timeout (seconds)",
        "description": (
            "Longest wait for an answer, in seconds; the broker itself gives up after 60. Default: 65."
        ),
        "schema": {"type": ["number", "null"], "minimum": 0.1, "default": 65},
    },
    "attempts": {
        "label": "Attempts",
        "description": (
            "How often one exchange is tried at most, the first time included; 1 switches retries off. Default: 4."
        ),
        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 4},
    },
    "deadline": {
        "label": "Deadline (seconds)",
        "description": (
            "Longest time for one exchange with all its retries and waits, in seconds; "
            "a long listing or import consists of many exchanges. Default: 300."
        ),
        "schema": {"type": ["number", "null"], "minimum": 0.1, "default": 300},
    },
    "rate_limit": {
        "label": "Rate limit (requests per second)",
        "description": "Most requests per second that one task sends. Default: 10 for Serverless, otherwise no limit.",
        "schema": {"type": ["number", "null"], "minimum": 0.001},
    },
    "proxy": {
        "label": "Proxy",
        "description": (
            "URL of the HTTP proxy to the broker, such as http://proxy.example.com:3128. "
            "Proxy settings of the environment are ignored. Default: none."
        ),
        "schema": {"type": ["string", "null"]},
    },
    "allow_http": {
        "label": "Allow plain HTTP",
        "description": (
            "Allow an http:// address, and an mqtt:// or ws:// one, that is not on this machine. "
            "Secrets then cross the network readable by anyone on the way. Default: false."
        ),
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "read_only": {
        "label": "Read only",
        "description": "Refuse everything that could change the broker before it is sent. Default: false.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "mqtt_url": {
        "label": "MQTT address",
        "description": (
            "Address of the MQTT listener, for commands, messages and waits for clients: mqtts://host:8883, "
            "wss://host:8084/mqtt, mqtt:// or ws://. Needs the extra airflow-provider-emqx[mqtt]. Default: none, "
            "nothing uses MQTT."
        ),
        "schema": {"type": ["string", "null"]},
    },
    "mqtt_username": {
        "label": "MQTT username",
        "description": "Username of the MQTT client. Default: none.",
        "schema": {"type": ["string", "null"]},
    },
    "mqtt_password": {
        "label": "MQTT password",
        "description": "Password of the MQTT client. Default: none.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
}
