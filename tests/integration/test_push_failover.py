"""REL-4: an app whose provider cannot be reached hands its devices to the app that it names as failover."""
import re
import socket

from harness import until
from phones import PushNode

PEOPLE = 12  # more than the ten failures in a row that open a breaker


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_another_app_takes_over():
    options = {"main": {"port": closed_port(), "failover": "spare", "topic": "com.example.main"}}
    with PushNode(apps={"main": "apns", "spare": "apns"}, app_options=options, sim_options=("--payload",)) as node:
        people = [f"person-{i}" for i in range(PEOPLE)]
        node.put_user(*people)
        phones = [node.phone(person, "main") for person in people]
        first = [node.send(person, channels=["push"]) for person in people]
        # the first ones learn that nobody is there; their retries, and whatever comes later, go by the other app
        until(lambda: node.metric("belfry_push_failovers") > 0, 60, "a push goes by the spare app")
        def line(name):
            return next(p for p in node.admin("GET", "/admin/status").json["push"]["pools"] if p["app"] == name)
        assert line("main")["failover"] == "spare" and line("spare")["failover"] == "" and line("main")["failed_over_at"]
        assert line("main")["breaker"] == "open" and line("main")["failed_over"] > 0 and line("spare")["failed_over"] == 0
        text = node.ctl("status").stdout
        assert re.search(r"^main +apns .* OPEN$", text, re.M), text
        assert re.search(r"^    its pushes go by app spare while it is out; \d+ have so far$", text, re.M), text
        for phone in phones:
            phone.got(seconds=60)
        assert node.metric("belfry_push_failed_over", app="main") == node.metric("belfry_push_failovers")
        for person, sent in zip(people, first):
            node.outcome(sent, person, "sent", seconds=20)
        late = node.send(people[0], channels=["push"], title="late")
        line = phones[0].got(2)[-1]
        assert line["topic"] == "com.example.spare"
        node.outcome(late, people[0], "sent")
