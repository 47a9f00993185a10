"""Fixtures: a node per module and engine. `node` runs both engines, `embedded` and `kafka` one."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import harness  # noqa: E402  (the path above makes it importable)

TOPICS = {"topics": {"broadcast": ["news", "news.*", "team.*"], "public": ["news", "news.*"]}}


def start(request, engine):
    """The module's node; CONFIG in the module is laid over the small default."""
    node = harness.Node(engine=engine, config=harness.merge(TOPICS, getattr(request.module, "CONFIG", {})))
    with node:
        yield node
    # a failed test's module prints the logs: see pytest_runtest_makereport


@pytest.fixture(scope="module")
def embedded(request):
    yield from start(request, "embedded")


@pytest.fixture(scope="module")
def kafka(request):
    yield from start(request, "kafka")


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def node(request):
    yield from start(request, request.param)


_users = 0


@pytest.fixture
def user(request):
    """A fresh user on whatever node the test uses."""
    global _users
    _users += 1
    name = f"user-{_users}"
    for fixture in ("node", "embedded", "kafka"):
        if fixture in request.fixturenames:
            request.getfixturevalue(fixture).put_user(name)
            break
    return name


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failing test shows the end of its node's logs."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when == "call":
        for value in item.funcargs.values():
            if isinstance(value, harness.Node):
                report.sections.append(("node logs", value.logs()))
