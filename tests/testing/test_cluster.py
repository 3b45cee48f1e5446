from __future__ import annotations

import json

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import call, upload


def test_v5_alarms() -> None:
    with FakeEmqx("5.8.9", nodes=["emqx@a", "emqx@b"]) as broker:
        broker.raise_alarm("high_cpu_usage", "95 %", {"usage": 95})
        broker.raise_alarm("high_cpu_usage", node="emqx@b")
        assert [row["node"] for row in call(broker, "GET", "/alarms").body["data"]] == ["emqx@a", "emqx@b"]
        assert (
            call(broker, "POST", "/alarms/force_deactivate", {"name": "nothing"}).body["code"] == "NOT_FOUND"
        )
        assert call(broker, "POST", "/alarms/force_deactivate", {"name": "high_cpu_usage"}).status == 204
        # Before 6.1 on the answering node only.
        assert [row["node"] for row in call(broker, "GET", "/alarms").body["data"]] == ["emqx@b"]
        past = call(broker, "GET", "/alarms?activated=false").body["data"]
        assert [(row["node"], "deactivate_at" in row) for row in past] == [("emqx@a", True)]
        assert call(broker, "DELETE", "/alarms").status == 204
        assert call(broker, "GET", "/alarms?activated=false").body["data"] == []


def test_v4_alarms() -> None:
    with FakeEmqx("4.4.19") as broker:
        broker.raise_alarm("high_cpu_usage")
        alarms = call(broker, "GET", "/alarms/activated").body["data"][0]["alarms"]
        assert [alarm["name"] for alarm in alarms] == ["high_cpu_usage"]
        body = {"node": "emqx@127.0.0.1", "name": "nothing"}
        assert call(broker, "POST", "/alarms/deactivated", body).body == {"message": "not_found"}
        assert call(broker, "POST", "/alarms/deactivated", {**body, "name": "high_cpu_usage"}).body == {
            "code": 0
        }
        assert call(broker, "GET", "/alarms/activated").body["data"][0]["alarms"] == []


@pytest.mark.parametrize(
    ("version", "method", "path"),
    [
        ("4.4.19", "PUT", "/listeners/mqtt%3Atcp%3Aexternal/restart"),
        ("5.8.9", "POST", "/listeners/tcp%3Adefault/restart"),
    ],
)
def test_restarting_a_listener_drops_its_connections(version: str, method: str, path: str) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("d")
        assert call(broker, method, path).status == 200
        assert "d" not in broker.clients
        assert sum(broker.restarts.values()) == 1


def test_listeners_that_do_not_exist_or_must_not_be_restarted() -> None:
    with FakeEmqx() as broker:
        assert call(broker, "POST", "/listeners/tcp%3Aother/restart").body["code"] == "BAD_LISTENER_ID"
        call(broker, "POST", "/listeners/tcp%3Adefault/stop")
        assert call(broker, "GET", "/listeners/tcp%3Adefault").body["running"] is False
    with FakeEmqx("4.4.19") as broker:
        assert call(broker, "PUT", "/listeners/http%3Amanagement/restart").status == 403


def test_v5_rules_are_put_whole() -> None:
    with FakeEmqx() as broker:
        broker.add_rule(
            "r", 'SELECT * FROM "t/#" WHERE x = 1', name="n", actions=["http:a"], description="text"
        )
        rule = call(broker, "GET", "/rules/r").body
        assert (rule["from"], rule["enable"]) == (["t/#"], True)
        assert call(broker, "PUT", "/rules/r", {"enable": False}).status == 400  # sql is required
        call(broker, "PUT", "/rules/r", {**rule, "enable": False})
        assert call(broker, "GET", "/rules/r").body == {**rule, "enable": False}
        call(broker, "PUT", "/rules/r", {"sql": rule["sql"]})
        assert call(broker, "GET", "/rules/r").body["description"] == ""
        assert call(broker, "GET", "/rules/other").status == 404
        assert call(broker, "GET", "/rules?enable=false").body["data"] == []


def test_v4_rules_change_field_by_field_and_miss_in_http_200() -> None:
    with FakeEmqx("4.4.19") as broker:
        broker.add_rule("rule:1", 'SELECT * FROM "t/#"', description="text")
        assert call(broker, "PUT", "/rules/rule:1", {"enabled": False}).body["data"]["description"] == "text"
        assert call(broker, "GET", "/rules?enabled=false").body["data"][0]["id"] == "rule:1"
        missing = call(broker, "GET", "/rules/rule:2")
        assert (missing.status, missing.body) == (200, {"message": "Not Found", "code": 404})
        assert call(broker, "PUT", "/rules/rule:2", {}).body["code"] == 400


def test_v5_actions_and_connectors() -> None:
    with FakeEmqx() as broker:
        broker.add_connector("http:c", status="disconnected")
        broker.add_action("http:a", connector="c")
        broker.add_rule("r", 'SELECT * FROM "t"', actions=["http:a"])
        action = call(broker, "GET", "/actions/http:a").body
        assert (action["status"], action["rules"]) == ("connected", ["r"])
        connector = call(broker, "GET", "/connectors/http%3Ac").body
        assert (connector["status"], connector["status_reason"]) == ("disconnected", "Connection refused")
        assert call(broker, "POST", "/connectors/http:c/start").status == 204
        assert call(broker, "GET", "/connectors/http:c").body["status"] == "connected"
        assert call(broker, "PUT", "/actions/http:a/enable/false").status == 204
        refused = call(broker, "POST", "/actions/http:a/start")
        assert refused.body["message"] == "Forbidden operation, bridge not enabled"
        assert call(broker, "POST", "/actions/http:a/restart").status == 400  # only start exists
        assert call(broker, "DELETE", "/connectors/http:c").status == 400
        assert call(broker, "DELETE", "/actions/http:a").status == 400
        assert call(broker, "DELETE", "/actions/http:a?also_delete_dep_actions=true").status == 204
        assert call(broker, "GET", "/rules/r").body["actions"] == []
        broker.add_source("mqtt:s")
        assert call(broker, "GET", "/sources/mqtt:s").body["status"] == "connected"
        broker.set_status("http:c", "connecting")
        assert call(broker, "GET", "/connectors").body[0]["status"] == "connecting"


def test_v5_a_connector_in_use_stays() -> None:
    with FakeEmqx() as broker:
        broker.add_connector("http:c")
        broker.add_source("http:s", connector="c")
        assert call(broker, "DELETE", "/connectors/http:c").status == 400
        call(broker, "DELETE", "/sources/http:s")
        assert call(broker, "DELETE", "/connectors/http:c").status == 204


def test_rules_that_are_none_are_refused() -> None:
    with FakeEmqx() as broker:
        assert call(broker, "POST", "/rules", {"sql": 'SELECT * FROM "t"', "actions": None}).status == 400
        assert call(broker, "GET", "/rules").body["data"] == []
    with FakeEmqx("4.4.19") as broker:
        broker.add_rule("r", 'SELECT * FROM "t"')
        assert call(broker, "PUT", "/rules/r", {"rawsql": 5}).body["code"] == 400
        assert call(broker, "GET", "/rules/r").body["data"]["rawsql"] == 'SELECT * FROM "t"'


def test_v4_creates_nothing_for_a_test() -> None:
    with FakeEmqx("4.4.19") as broker:
        rule = {"rawsql": 'SELECT * FROM "t"', "actions": []}
        assert call(broker, "POST", "/rules?test=true", rule).body["code"] == 0
        assert call(broker, "POST", "/resources", {"type": "web_hook", "test": True}).body["code"] == 0
        assert call(broker, "GET", "/rules").body["data"] == []
        assert call(broker, "GET", "/resources").body["data"] == []


def test_v4_resources_show_their_status_in_two_ways() -> None:
    with FakeEmqx("4.4.19") as broker:
        broker.add_resource("resource:1", type="web_hook", alive=False)
        assert call(broker, "GET", "/resources").body["data"][0]["status"] is False
        status = call(broker, "GET", "/resources/resource:1").body["data"]["status"]
        assert status == [{"node": "emqx@127.0.0.1", "is_alive": False}]
        assert call(broker, "POST", "/resources/resource:1").body == {"code": 0}
        assert call(broker, "GET", "/resource_status/resource:1").body["data"] == {"is_alive": True}
        assert call(broker, "POST", "/resources/other").body["code"] == 400


def test_v5_backups_stay_on_their_node_and_bring_users_back() -> None:
    with FakeEmqx(nodes=["emqx@a", "emqx@b"]) as broker:
        broker.add_user("u", "p")
        made = call(broker, "POST", "/data/export", {}).body
        content = call(broker, "GET", f"/data/files/{made['filename']}?node=emqx@a")
        assert (content.status, int(content.headers["Content-Length"])) == (200, made["size"])
        assert call(broker, "GET", f"/data/files/{made['filename']}?node=emqx@b").status == 404
        broker.users.clear()
        assert call(broker, "POST", "/data/import", {"filename": made["filename"]}).status == 204
        assert broker.verify("u", "p")
        assert call(broker, "DELETE", f"/data/files/{made['filename']}").status == 204
        assert call(broker, "DELETE", f"/data/files/{made['filename']}").status == 404


def test_what_one_broker_exported_another_one_imports() -> None:
    with FakeEmqx() as old, FakeEmqx() as new:
        old.add_user("u", "p")
        call(old, "POST", "/banned", {"as": "clientid", "who": "d"})
        filename = call(old, "POST", "/data/export", {}).body["filename"]
        assert upload(new, "/data/files", filename, old.state.backups[filename].content).status == 204
        call(new, "DELETE", "/authentication/password_based%3Abuilt_in_database")
        assert call(new, "POST", "/data/import", {"filename": filename}).status == 204
        assert new.verify("u", "p")
        assert not new.connect("d")
    with FakeEmqx("4.4.19") as old, FakeEmqx("4.4.19") as new:
        old.add_user("u", "p")
        filename = call(old, "POST", "/data/export").body["data"]["filename"]
        content = call(old, "GET", f"/data/file/{filename}").body["data"]["file"]
        call(new, "POST", "/data/file", {"filename": filename, "file": content})
        assert call(new, "POST", "/data/import", {"filename": filename}).body == {"code": 0}
        assert new.verify("u", "p")


def test_v5_uploads_are_checked() -> None:
    with FakeEmqx() as broker:
        filename = broker.export_backup()
        content = broker.state.backups.pop(filename).content
        assert upload(broker, "/data/files", filename, content).status == 204
        assert upload(broker, "/data/files", filename, content).status == 400  # there already
        assert upload(broker, "/data/files", "other.tar.gz", content[:50]).status == 400


def test_v4_backups() -> None:
    with FakeEmqx("4.4.19") as broker:
        broker.add_user("u", "p")
        made = call(broker, "POST", "/data/export").body["data"]
        file = call(broker, "GET", f"/data/file/{made['filename']}").body["data"]["file"]
        assert json.loads(file)["version"] == "4.4"
        broker.users.clear()
        call(broker, "POST", "/data/import", {"filename": made["filename"]})
        assert broker.verify("u", "p")
        assert call(broker, "DELETE", f"/data/file/{made['filename']}").body == {"code": 0}
        assert call(broker, "GET", f"/data/file/{made['filename']}").body == {"message": "not_found"}


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
def test_an_evacuation_empties_a_node_second_by_second(version: str) -> None:
    with FakeEmqx(version, nodes=["emqx@a", "emqx@b"], edition="Enterprise") as broker:
        broker.connect_many((f"d{number}" for number in range(5)), node="emqx@a", session_expiry=60)
        broker.disconnect("d4")
        path = "/load_rebalance/emqx@a/evacuation"
        options = {"conn_evict_rate": 2, "sess_evict_rate": 1, "wait_takeover": 10}
        assert call(broker, "POST", path + "/start", options).status == 200
        assert call(broker, "GET", "/load_rebalance/availability_check", key=None).status == 503
        if version == "5.8.9":
            assert call(broker, "GET", "/load_rebalance/status").body["state"] == "waiting_health_check"
            broker.advance(60)
        status = call(broker, "GET", "/load_rebalance/global_status").body["evacuations"]
        running = status["emqx@a"] if version == "4.4.19" else status[0]
        assert (running["stats"]["initial_connected"], running["stats"]["current_connected"]) == (4, 2)
        broker.advance(20)
        assert {client.node for client in broker.clients.values()} == {"emqx@b"}
        assert call(broker, "GET", "/load_rebalance/status").body["state"] == "prohibiting"
        assert call(broker, "POST", path + "/start", options).body["code"] in {400, "BAD_REQUEST"}
        assert call(broker, "POST", path + "/stop", {}).status == 200
        assert call(broker, "GET", "/load_rebalance/status").body == {"status": "disabled"}


def test_an_evacuation_may_be_over_at_once() -> None:
    with FakeEmqx("5.9.0", nodes=["emqx@a", "emqx@b"]) as broker:
        broker.connect("d", node="emqx@a")
        call(broker, "POST", "/load_rebalance/emqx@a/evacuation/start", {})
        broker.finish_evacuation("emqx@a")
        assert broker.clients["d"].node == "emqx@b"


def test_a_rebalance_evens_out() -> None:
    with FakeEmqx("5.9.0", nodes=["emqx@a", "emqx@b"]) as broker:
        broker.connect_many((f"d{number}" for number in range(10)), node="emqx@a")
        path = "/load_rebalance/emqx@a/start"
        options = {"wait_health_check": "1s", "conn_evict_rate": 3, "abs_conn_threshold": 1}
        assert call(broker, "POST", path, options).body == {}
        assert call(broker, "GET", "/load_rebalance/availability_check", key=None).status == 503
        assert call(broker, "GET", "/load_rebalance/global_status").body["rebalances"][0]["donors"] == [
            "emqx@a"
        ]
        broker.advance(5)
        assert sum(client.node == "emqx@b" for client in broker.clients.values()) == 6
        running = call(broker, "GET", "/load_rebalance/global_status").body["rebalances"][0]
        assert (running["state"], running["connection_goal"]) == ("wait_takeover", 6)
        broker.advance(60)
        assert call(broker, "GET", "/load_rebalance/global_status").body["rebalances"] == []
        assert call(broker, "POST", path, {}).body["message"].endswith("nothing_to_balance")


def test_a_rebalance_is_not_worth_while_below_both_thresholds() -> None:
    with FakeEmqx("5.9.0", nodes=["emqx@a", "emqx@b"]) as broker:
        broker.connect_many((f"d{number}" for number in range(1000)), node="emqx@a")
        path = "/load_rebalance/emqx@a/start"
        assert call(broker, "POST", path, {}).body["message"].endswith("nothing_to_balance")
        broker.connect("one more", node="emqx@a")
        assert call(broker, "POST", path, {}).status == 200


def test_sessions_of_the_only_node_stay_when_it_is_evacuated() -> None:
    with FakeEmqx("5.9.0") as broker:
        broker.connect("kept", session_expiry=3600)
        broker.connect("gone")
        path = "/load_rebalance/emqx@127.0.0.1/evacuation"
        assert call(broker, "POST", path + "/start", {}).status == 200
        assert broker.connect("late")  # health checks are waited for
        broker.advance(200)
        assert {name: client.connected for name, client in broker.clients.items()} == {"kept": False}
        (running,) = call(broker, "GET", "/load_rebalance/global_status").body["evacuations"]
        assert (running["state"], running["stats"]["current_sessions"]) == ("evicting_sessions", 1)
        assert not broker.connect("later")
        assert call(broker, "POST", "/load_rebalance/other@x/evacuation/start", {}).status == 404


def test_the_licence_ends_some_day() -> None:
    with FakeEmqx("6.1.0") as broker:
        broker.state.license_days = -1
        assert call(broker, "GET", "/license").body["expiry"] is True


def test_v4_times_are_the_nodes_own() -> None:
    with FakeEmqx("4.4.19", utc_offset=2) as broker:
        broker.connect("d", connected_at=0)
        assert call(broker, "GET", "/clients/d").body["data"][0]["connected_at"] == "1970-01-01 02:00:00"
