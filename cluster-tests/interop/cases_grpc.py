"""The gRPC API for admins, as a client sees it that knows nothing of Fulmar: services, methods and messages come from
reflection. Every method is called; nobody answers that it is not there, or that it has failed."""

import threading
from typing import Any, Iterator, Optional

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from harness import Context, Failure, case, expect, require

PACKAGE = "fulmar.admin.v1"
CALL_S = 30.0
# A stream has begun when its first message is there, or when it stays open that long.
STREAM_S = 2.0

# They would end the node that the other cases use, or everything that is in it: they are called by nobody, who is refused.
HARMFUL = {"Cluster.Drain", "Cluster.Recover", "Backups.Restore", "Sessions.Clear"}

# A method that answers so is not there, or is broken.
BROKEN = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


class Client:
    """Connected to the door of one node; what it knows, it has from there."""

    def __init__(self, ctx: Context, node: int = 0):
        door = ctx.endpoints.door("admin", node)
        target = f"{door.host}:{door.port}"
        if ctx.endpoints.ca:
            with open(ctx.endpoints.ca, "rb") as file:
                self.channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()))
        else:
            self.channel = grpc.insecure_channel(target)
        ctx.on_close(self.channel.close)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)
        self.token: Optional[str] = ctx.endpoints.credentials["admin"]["token"]

    def services(self) -> list[Any]:
        names = [name for name in self.database.get_services() if name.startswith(PACKAGE + ".")]
        return [self.pool.FindServiceByName(name) for name in sorted(names)]

    def methods(self) -> list[MethodDescriptor]:
        return [method for service in self.services() for method in service.methods]

    def method(self, name: str) -> MethodDescriptor:
        service, method = name.split(".")
        return self.pool.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[method]

    def metadata(self, token: Optional[str]) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {token}")] if token else []

    def stub(self, method: MethodDescriptor) -> Any:
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
        }
        answer = message_factory.GetMessageClass(method.output_type)
        return kinds[method.client_streaming, method.server_streaming](
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def ask(self, name: str, token: Optional[str], **members: Any) -> tuple[Any, dict]:
        """One call with these members, which may be dictionaries; the answer and its metadata."""
        method = self.method(name)
        request = message_factory.GetMessageClass(method.input_type)(**members)
        answer, call = self.stub(method).with_call(request, timeout=CALL_S, metadata=self.metadata(token))
        return answer, dict(call.initial_metadata())

    def refused(self, name: str, token: Optional[str], wanted: grpc.StatusCode, **members: Any) -> None:
        try:
            self.ask(name, token, **members)
        except grpc.RpcError as error:
            expect(error.code(), wanted, name)
            return
        raise Failure(f"{name} is done, and should be {wanted}")


def made(descriptor: Any, suffix: str, depth: int = 8) -> Any:
    """A message with something in every field."""
    message = message_factory.GetMessageClass(descriptor)()
    if descriptor.full_name == "google.protobuf.Struct":
        message.update({"made": 1})
        return message
    if descriptor.full_name == "google.protobuf.Value":
        message.string_value = "made"
        return message
    if descriptor.full_name == "google.protobuf.ListValue" or depth == 0:
        return message
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name) is not None:
            continue
        repeated = field.is_repeated
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                continue
            inner = made(field.message_type, suffix, depth - 1)
            if repeated:
                getattr(message, field.name).append(inner)
            else:
                getattr(message, field.name).CopyFrom(inner)
            continue
        value: Any = {
            FieldDescriptor.CPPTYPE_STRING: b"made" if field.type == FieldDescriptor.TYPE_BYTES else f"made-{suffix}",
            FieldDescriptor.CPPTYPE_BOOL: True,
        }.get(field.cpp_type, 1)
        if repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


def harmless(methods: list[MethodDescriptor]) -> Iterator[tuple[str, MethodDescriptor]]:
    for method in methods:
        name = f"{method.containing_service.name}.{method.name}"
        if name not in HARMFUL:
            yield name, method


def first_of_stream(stream: Any) -> None:
    """Waits until a stream has begun; an error of it is raised."""
    stop = threading.Timer(STREAM_S, stream.cancel)
    stop.start()
    try:
        for _ in stream:
            break
        stream.cancel()
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.CANCELLED:
            raise
    finally:
        stop.cancel()


@case("grpc", "reflection v1 and v1alpha describe the same services")
def lists(ctx: Context) -> None:
    client = Client(ctx)
    names = {service.name for service in client.services()}
    for wanted in ("Apps", "Cluster", "Devices", "Iam", "Messages", "Products", "Rules"):
        require(wanted in names, f"no service {wanted} among {sorted(names)}")
    listed = []
    for version in ("v1", "v1alpha"):
        stub = client.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(iter(stub(iter([request]), timeout=CALL_S)))
        found = {service.name for service in answer.list_services_response.service}
        listed.append({name for name in found if not name.startswith("grpc.reflection.")})
    expect(listed[0], listed[1], "services")
    require("grpc.health.v1.Health" in listed[0], "health is described")


@case("grpc", "every method that is answered once is there", deadline=50)
def unary(ctx: Context) -> None:
    client = Client(ctx)
    broken, called = [], 0
    for name, method in harmless(client.methods()):
        if method.client_streaming or method.server_streaming:
            continue
        called += 1
        try:
            request = made(method.input_type, ctx.suffix)
            client.stub(method)(request, timeout=CALL_S, metadata=client.metadata(client.token))
        except grpc.RpcError as error:
            if error.code() in BROKEN or error.code() == grpc.StatusCode.PERMISSION_DENIED:
                broken.append(f"{name}: {error.code().name} {error.details()}")
    require(called > 70, f"only {called} methods")
    require(not broken, "; ".join(broken))


@case("grpc", "every stream begins, and every upload is answered", deadline=50)
def streams(ctx: Context) -> None:
    client = Client(ctx)
    broken = []
    for name, method in harmless(client.methods()):
        request = made(method.input_type, ctx.suffix)
        try:
            if method.server_streaming:
                first_of_stream(client.stub(method)(request, timeout=CALL_S, metadata=client.metadata(client.token)))
            elif method.client_streaming:
                client.stub(method)(iter([request]), timeout=CALL_S, metadata=client.metadata(client.token))
        except grpc.RpcError as error:
            if error.code() in BROKEN or error.code() == grpc.StatusCode.PERMISSION_DENIED:
                broken.append(f"{name}: {error.code().name} {error.details()}")
    require(not broken, "; ".join(broken))


@case("grpc", "nobody may do anything without a token", deadline=20)
def nobody(ctx: Context) -> None:
    client = Client(ctx)
    open_doors = []
    for method in client.methods():
        name = f"{method.containing_service.name}.{method.name}"
        if name == "Iam.CreateToken":
            continue
        request = made(method.input_type, ctx.suffix)
        try:
            if method.server_streaming:
                next(iter(client.stub(method)(request, timeout=CALL_S)))
            else:
                client.stub(method)(iter([request]) if method.client_streaming else request, timeout=CALL_S)
            open_doors.append(name)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                open_doors.append(f"{name}: {error.code().name}")
    require(not open_doors, "; ".join(open_doors))


@case("grpc", "a user may what its role allows", deadline=30)
def roles(ctx: Context) -> None:
    client = Client(ctx)
    tokens = {}
    for role in ("viewer", "operator", "admin"):
        name, password = f"{role}-{ctx.suffix}", f"password-{ctx.suffix}"
        client.ask("People.CreateUser", client.token, body={"name": name, "password": password, "role": role})
        ctx.on_close(lambda name=name: client.ask("People.DeleteUser", client.token, user_name=name))
        identity = {"methods": ["password"], "password": {"user": {"name": name, "password": password}}}
        answer, metadata = client.ask("Iam.CreateToken", None, body={"auth": {"identity": identity}})
        require(answer.token.expires_at, "the token has a lifetime")
        tokens[role] = metadata["x-subject-token"]
    app = {"app_name": f"app-{ctx.suffix}"}
    denied = grpc.StatusCode.PERMISSION_DENIED
    for token in tokens.values():
        answer, _ = client.ask("Apps.List", token)
        require(len(answer.applications) > 0, "the default app is there")
    client.refused("Apps.Create", tokens["viewer"], denied, body=app)
    client.refused("Rules.ListActions", tokens["viewer"], denied)
    made_app, _ = client.ask("Apps.Create", tokens["operator"], body=app)
    client.ask("Apps.Delete", tokens["operator"], app_id=made_app.app_id)
    client.refused("People.ListUsers", tokens["operator"], denied)
    users, _ = client.ask("People.ListUsers", tokens["admin"])
    require(any(user.name == f"viewer-{ctx.suffix}" for user in users.users), "the admin sees the users")
    client.refused("Apps.List", "wrong-" + ctx.suffix, grpc.StatusCode.UNAUTHENTICATED)


@case("grpc", "health tells of each service")
def health(ctx: Context) -> None:
    client = Client(ctx)
    stub = health_pb2_grpc.HealthStub(client.channel)
    for name in ["", *(service.full_name for service in client.services())]:
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_S).status
        expect(status, health_pb2.HealthCheckResponse.SERVING, name or "the node")
    first = next(iter(stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=CALL_S)))
    expect(first.status, health_pb2.HealthCheckResponse.SERVING, "a watch")
    try:
        stub.Check(health_pb2.HealthCheckRequest(service=PACKAGE + ".Nothing"), timeout=CALL_S)
    except grpc.RpcError as error:
        expect(error.code(), grpc.StatusCode.NOT_FOUND, "an unknown service")
        return
    raise Failure("an unknown service is healthy")
