"""Checks of what an edge runs: whether its agent answers, and what was left by a killed `join`."""

from collections.abc import Iterator
from shlex import quote

import grpc

from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.left_over import left_sandboxes, orphaned, running_agents
from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong
from fedperfit.protocol.schema import owner_pb2, owner_pb2_grpc

_SECONDS = 10.0


def programs(home: Home) -> Iterator[Finding]:
    """Check the agent, and that no sandbox was left.

    Args:
        home: The person's folder.
    """
    told = _explained(home)
    agents = running_agents(home)
    for agent in agents:
        if orphaned(agent):
            said = f"process {agent.pid} is of a `join` that is gone, and keeps the folder from the next one"
            yield wrong("orphaned agent", said, f"join again, which stops it, or kill {agent.pid}")
    for sandbox in left_sandboxes(home):
        said = f"process {sandbox.pid} is of a `join` that is gone"
        yield wrong("orphaned sandbox", said, f"join again, which stops it, or kill -9 {sandbox.pid}")
    if told is None and agents:
        yield warning(
            "agent", "runs, but does not answer: it loads the base model, or hangs", "see agent.log"
        )
    elif told is None:
        advice = "fedperfit-edge join with your invitation, or start its service"
        yield warning("agent", "is not running: the cloud gets no answer", advice)
    else:
        yield ok("agent", f"answers at stage {told.stage}" + (f"; {told.busy}" if told.busy else ""))
        yield from _state(home, told)


def _state(home: Home, told: owner_pb2.Explanation) -> Iterator[Finding]:
    named = quote(str(home.folder))
    if told.problem:
        yield warning("personal answers", told.problem, f"fedperfit-edge explain {named} says more")
    if told.paused:
        yield warning("consent", "you have paused the agent", f"fedperfit-edge resume {named}")
    elif told.not_consented:
        said = f"you refuse {', '.join(told.not_consented)}"
        yield warning("consent", said, f"fedperfit-edge consent {named} KIND on allows one again")
    if told.refused:
        said = f"{told.refused}, the latest at {told.refusal}"
        yield warning("refused requests", said, f"fedperfit-edge log {named} lists them")


def _explained(home: Home) -> owner_pb2.Explanation | None:
    """Ask the agent for its state; None where it does not answer."""
    try:
        with connect(home.owner) as channel:
            stub = owner_pb2_grpc.OwnerStub(channel)
            told: owner_pb2.Explanation = stub.Explain(owner_pb2.ExplainRequest(), timeout=_SECONDS)
            return told
    except grpc.RpcError:
        return None
