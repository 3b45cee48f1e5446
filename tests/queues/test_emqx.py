"""The queue of common.messaging: an optional extra, found by its scheme."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from airflow_provider_emqx.triggers.messages import EmqxMessageTrigger
from tests.needs import needs

MESSAGING = "apache-airflow-providers-common-messaging"
NEEDED = needs("apache-airflow", "3.0.1", "common.messaging needs it")


def has_messaging() -> bool:
    try:
        metadata.version(MESSAGING)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not has_messaging(), reason=f"{MESSAGING} is not installed")
@NEEDED  # the reason that counts, where both do not hold
def test_the_queue_is_found_by_its_scheme() -> None:
    from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger

    trigger = MessageQueueTrigger(scheme="emqx", topic="devices/+/done", payload="x", batch_size=7)
    expected = EmqxMessageTrigger(topic="devices/+/done", payload="x", batch_size=7)
    # what Airflow stores is the trigger itself, which it confirms events to
    assert trigger.serialize() == expected.serialize()
    # a queue by its address would have to name a connection that Airflow does not have
    with (
        pytest.warns(DeprecationWarning, match="queue"),
        pytest.raises(ValueError, match="not recognized"),
    ):
        _ = MessageQueueTrigger(queue="emqx://broker/devices", topic="a").trigger


@NEEDED
def test_airflow_passes_over_the_queue_where_common_messaging_is_missing() -> None:
    program = (
        "import sys; sys.modules['airflow.providers.common.messaging.providers'] = None\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "manager = ProvidersManager(); manager.initialize_providers_queues()\n"
        "print([name for name in manager.queue_class_names if 'emqx' in name])\n"
        "print('airflow-provider-emqx' in manager.providers)\n"
        "try:\n"
        "    import airflow_provider_emqx.queues.emqx\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, str(error).split()[4])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-4:] == [
        "[]",
        "True",
        "AirflowOptionalProviderFeatureException",
        "airflow-provider-emqx[messaging]",
    ]
    assert "Exception when importing" not in ran.stdout + ran.stderr
