"""service_pb2.py is what service.proto says.

To renew both files, in the directory sdk/ with the oldest grpcio-tools whose protobuf we support (1.72, so that
protobuf 6 and 7 both load the result) and mypy-protobuf:

    python -m grpc_tools.protoc -I . --python_out=. --mypy_out=. perdure/protocol/service.proto
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from perdure.protocol import service_pb2

PROTO = "perdure/protocol/service.proto"
SDK = Path(service_pb2.__file__).parents[2]


def test_the_checked_in_messages_are_the_text(tmp_path: Path) -> None:
    compiled = tmp_path / "service.bin"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", str(SDK), f"--descriptor_set_out={compiled}", PROTO],
        check=True,
        cwd=SDK,
    )
    [from_text] = FileDescriptorSet.FromString(compiled.read_bytes()).file
    checked_in = FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(checked_in)
    # The compiler spells out the default JSON names, the checked-in form leaves them out.
    for message in [*walk(from_text.message_type), *walk(checked_in.message_type)]:
        for field in message.field:
            field.ClearField("json_name")
    assert checked_in == from_text


def test_the_stubs_name_every_message_and_field() -> None:
    tree = ast.parse((SDK / "perdure/protocol/service_pb2.pyi").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name, descriptor in service_pb2.DESCRIPTOR.message_types_by_name.items():
        names = {
            n.target.id for n in classes[name].body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
        names |= {n.name for n in classes[name].body if isinstance(n, ast.FunctionDef)}
        assert {field.name for field in descriptor.fields} <= names, name


def test_the_oldest_protobuf_we_support_can_load_it() -> None:
    source = Path(service_pb2.__file__).read_text()
    assert "# Protobuf Python Version: 6.30.0" in source


def walk(messages):  # type: ignore[no-untyped-def]
    for message in messages:
        yield message
        yield from walk(message.nested_type)
