"""Identity of callers: certificates, narrowed roles, development without TLS, and refused callers."""

import itertools
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from patience import NEVER
from services.common import identity
from services.common.serve import serve
from services.common.settings import Settings
from services.launcher import certificates
from ultrafolio.errors import InputError
from ultrafolio.rpc import client
from ultrafolio.rpc.client import Tls, connect
from ultrafolio.rpc.errors import StatusError

ROOT = Path(__file__).parents[2]


def add(_, server):
    def who(request, context):
        caller = identity.of(context) if not request else identity.require(context, request.decode().split())
        return f"{caller} {caller.verified}".encode()

    handlers = {"Who": grpc.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Identity", handlers),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("certificates") / "new"
    certificates.make(made, guests=["3"])
    return made


@pytest.fixture(scope="module")
def address(folder):
    running = serve("host_mm", [(add, None)], Settings(tls=str(folder)))
    yield running.address
    running.stop(0)


@pytest.fixture(scope="module")
def plain():
    running = serve("host_mm", [(add, None)], Settings())
    yield running.address
    running.stop(0)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(client, "RETRY", client.RETRY | {"initialBackoff": "0.01s", "maxBackoff": "0.01s"})


def who(address, role, tls=None, request=b"", server="host", metadata=None):
    with connect(address, role, tls=tls, server=server, timeout_s=10) as channel:
        return channel.unary_unary("/test.Identity/Who")(request, metadata=metadata).decode()


@pytest.mark.parametrize(
    ("certificate", "said", "is_"),
    [
        *((role, role, f"{role} True") for role in identity.ROLES),
        ("guest", "guest:9", "guest:9 True"),
        ("guest-3", "guest", "guest:3 True"),
        ("guest-3", "guest:3", "guest:3 True"),
    ],
)
def test_a_certificate_proves_a_role(folder, address, certificate, said, is_):
    assert who(address, said, Tls.read(folder, certificate)) == is_


PAIRS = [
    (c, s)
    for c, s in itertools.product((*identity.ROLES, "guest-3"), (*identity.ROLES, "guest:3", "guest:4"))
    if c != s
    and not (c.startswith("guest") and s == "guest")
    and (c, s) not in (("guest", "guest:3"), ("guest", "guest:4"), ("guest-3", "guest:3"))
]


@pytest.mark.parametrize(("certificate", "said"), PAIRS)
def test_a_caller_cannot_change_its_role(folder, address, certificate, said):
    with pytest.raises(StatusError) as caught:
        who(address, said, Tls.read(folder, certificate))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_CERTIFIED")


def test_the_role_decides_whether_a_call_is_allowed(folder, address):
    assert who(address, "lab", Tls.read(folder, "lab"), b"host lab") == "lab True"
    with pytest.raises(StatusError) as caught:
        who(address, "guest:4", Tls.read(folder, "guest"), b"host lab")
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")
    assert (error.value, error.allowed) == ("guest:4", "host, lab")


def test_wrong_and_missing_certificates_get_nothing(tmp_path, folder, address):
    certificates.make(tmp_path / "other")
    ours, theirs = Tls.read(folder, "host"), Tls.read(tmp_path / "other", "host")
    strangers = [
        None,  # no TLS at all
        Tls(ours.authority, theirs.certificate, theirs.key),  # signed by another authority
        theirs,  # which does not trust our service either
    ]
    for tls in strangers:
        with pytest.raises(StatusError) as caught:
            who(address, "host", tls)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    for credentials in (grpc.ssl_channel_credentials(ours.authority), grpc.ssl_channel_credentials()):
        options = [("grpc.ssl_target_name_override", client.server_name("host")), ("grpc.enable_retries", 0)]
        with grpc.secure_channel(address, credentials, options) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/test.Identity/Who")(b"", timeout=NEVER)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_verifies_the_service(folder, address):
    with pytest.raises(StatusError) as caught:
        who(address, "guest", Tls.read(folder, "guest"), server="ultravisor")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE and "Verification" in caught.value.value


def test_without_tls_the_role_is_unverified(plain):
    assert who(plain, "guest:7") == "guest:7 False"
    assert who(plain, "host", request=b"host") == "host False"
    with pytest.raises(StatusError) as caught:
        who(plain, "guest:7", request=b"host")
    assert caught.value.reason == "ROLE_NOT_ALLOWED"
    with grpc.insecure_channel(plain) as channel:
        assert channel.unary_unary("/test.Identity/Who")(b"", timeout=NEVER) == b"nobody False"


@pytest.mark.parametrize("said", ["hots", "host:1", "", "guest:1:2", "guest:" + "1" * 65])
def test_unknown_roles(plain, said):
    with pytest.raises(StatusError) as caught:
        who(plain, said)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNKNOWN_ROLE")


def test_a_role_that_cannot_be_sent(plain):
    for role in ("\x7f", "hôte"):
        with pytest.raises(InputError, match="role of the caller"):
            connect(plain, role)


def test_a_certificate_without_a_role(monkeypatch, tmp_path, folder, address):
    monkeypatch.setattr(certificates, "URI", "https://example.org/")
    certificates.make(tmp_path / "roleless")
    monkeypatch.undo()
    server = serve("host_mm", [(add, None)], Settings(tls=str(tmp_path / "roleless")))
    try:
        with pytest.raises(StatusError) as caught:
            who(server.address, "host", Tls.read(tmp_path / "roleless", "host"))
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAUTHENTICATED, "NO_ROLE")
    finally:
        server.stop(0)


def test_certificates_are_signed_by_the_authority_for_thirty_days_and_keys_are_private(folder):
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == (0o600 if file.suffix == ".key" else 0o644), file
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    for name in (*identity.ROLES, "guest-3"):
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
        certificate.verify_directly_issued_by(authority)
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=29) < left <= timedelta(days=30)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["ultrafolio://" + name.replace("-", "/")]


def test_the_command_makes_certificates(tmp_path):
    command = [sys.executable, "-m", "services.launcher.certificates", str(tmp_path / "c")]
    for code in (0, 2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
    assert "holds certificates already" in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(InputError, match=r"guest-8\.crt: cannot be read"):
        Tls.read(tmp_path / "c", "guest-8")
