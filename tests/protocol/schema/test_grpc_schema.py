"""The committed gRPC modules are those of the schema, and the bridge's schema can carry nothing personal."""

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

import fedperfit
from fedperfit.protocol.schema import bridge_pb2

SOURCES = Path(fedperfit.__file__).parents[1]
SCHEMA = Path("fedperfit") / "protocol" / "schema"
NAMES = ("bridge", "feed", "owner")
GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def test_the_generated_modules_are_current(tmp_path: Path) -> None:
    sources = [str(SCHEMA / f"{name}.proto") for name in NAMES]
    flags = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", *flags, *sources]
    subprocess.run(command, check=True, cwd=SOURCES)
    for name in NAMES:
        for suffix in GENERATED:
            made = tmp_path / SCHEMA / f"{name}{suffix}"
            assert made.read_text() == (SOURCES / SCHEMA / made.name).read_text()


def test_replies_over_the_bridge_have_six_fields_of_bytes_and_four_that_name() -> None:
    kinds: dict[int, set[str]] = {}

    def walk(message: Descriptor) -> None:
        for field in message.fields:
            if field.message_type is not None:
                walk(field.message_type)
            else:
                kinds.setdefault(field.type, set()).add(f"{message.name}.{field.name}")

    service = bridge_pb2.DESCRIPTOR.services_by_name["Bridge"]
    for method in service.methods:
        walk(method.output_type)
    statistics = {"MomentsReply.moments", "ProbeReply.sums", "PullReply.pull"}
    updates = {"ContributeReply.update", "ContributeReply.sealed", "SumReply.sum"}
    assert kinds.pop(FieldDescriptor.TYPE_BYTES) == {*updates, *statistics}
    names = {"StatusReply.client", "StatusReply.fingerprint", "StatusReply.task", "SumReply.bad"}
    assert kinds.pop(FieldDescriptor.TYPE_STRING) == names
    numbers = {FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_BOOL}
    assert set(kinds) == numbers
