"""
The past of ``make ui``: runs of two example DAGs over the last eight days, so that the pages of their results show one.

It waits for the API server, and does nothing if the DAGs have runs already.
"""

from __future__ import annotations

import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

DAYS = 8
SCOPE = "example-sensor-"
USERS, PROVISION, UPKEEP = 1_990, "emqx_provision_users", "emqx_nightly_upkeep"


def main() -> None:
    url = sys.argv[1]
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {until(lambda: token(session, url))}"

    def call(method: str, path: str, body: Any = None) -> Any:
        answer = session.request(method, f"{url}/api/v2/{path}", json=body, timeout=60)
        return answer.json() if answer.ok else None

    for dag in (PROVISION, UPKEEP):
        until(lambda dag=dag: call("GET", f"dags/{dag}"))
    if call("GET", f"dags/{PROVISION}/dagRuns?limit=1")["total_entries"]:
        return
    for dag in (PROVISION, UPKEEP):
        call("PATCH", f"dags/{dag}", {"is_paused": False})
    night = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    for number in range(DAYS):
        moment = (night + timedelta(days=number)).isoformat()
        source = f"devices-{moment[:10]}.csv"
        write(Path(source), number)
        conf = {"source": source, "report_path": f"rejected-{moment[:10]}.jsonl", "mode": "upsert"}
        for dag, given in ((PROVISION, conf), (UPKEEP, {})):
            run = {"logical_date": None, "run_after": moment, "conf": given}
            name = call("POST", f"dags/{dag}/dagRuns", run)["dag_run_id"]
            # one after another, as the nights were
            until(
                lambda dag=dag, name=name: (
                    call("GET", f"dags/{dag}/dagRuns/{name}")["state"] in ("success", "failed")
                )
            )


def token(session: requests.Session, url: str) -> str | None:
    try:
        return str(session.get(f"{url}/auth/token", timeout=10).json()["access_token"])
    except (requests.RequestException, ValueError, KeyError):
        return None


def write(path: Path, day: int) -> None:
    """Write the devices of a day: some new ones, and a few rows that cannot be right."""
    some = random.Random(day)
    names = [f"{SCOPE}{number}" for number in range(1, USERS + 1)]
    new = [f"{SCOPE}day{day}-{number}" for number in range(some.randrange(15, 90))]
    bad = set(some.sample(names, some.randrange(12)))
    rows = [f"{name},{'' if name in bad else f'pw-of-{name}'}" for name in (*names, *new)]
    rows.insert(900, f"{names[0]},second-row")
    path.write_text("\n".join(["user_id,password", *rows]) + "\n", encoding="utf-8")


def until(found: Any) -> Any:
    while not (value := found()):
        time.sleep(1)
    return value


if __name__ == "__main__":
    main()
