"""Development certificates: a certificate authority and one certificate per role, valid 30 days.

    python -m services.launcher.certificates FOLDER [--guest VM]... [--guest GROUP/VM]...

writes ca.crt, ca.key and ROLE.crt, ROLE.key for each role (keys readable by their owner only). `--guest 3` also makes
guest-3.crt, for virtual machine 3 only, `--guest g/3` guest-g-3.crt, for that machine of group g only. Each certificate
names its role as a URI (services.common.identity) and as a DNS name (rpc.client.server_name), and its hosts: loopback,
and the names of the services in a compose file. In production use your own authority with the same names.

The library trustme does not do here: as of its version 1.2.1 the names that it puts into a certificate are host names,
IP addresses and mail addresses, no URIs.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.common.identity import ROLES, URI
from ultrafolio.errors import InputError
from ultrafolio.rpc.client import server_name
from ultrafolio.state import roles

DAYS = 30
HOSTS = {role.name: role.host for role in roles.ROLES if role.host}


def make(folder: Path, guests: Sequence[str] = ()) -> list[Path]:
    """Write the authority and all certificates into `folder`. Returns the files.

    Raises InputError if the folder has an authority (a new one would invalidate its certificates) or is not writable.
    """
    if (folder / "ca.crt").exists():
        raise InputError(
            f"{folder}: holds certificates already",
            allowed="a new or empty folder",
            cause="a new authority makes the certificates of running services worthless",
            then=f"rm -r {folder}",
        )
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ultrafolio development authority")])
    ca = _signed(
        ca_name,
        ca_key,
        ca_name,
        ca_key,
        [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_usage(sign_certificates=True), True),
        ],
    )
    files = {"ca.key": _pem(ca_key)}
    own = ((f"guest-{machine.replace('/', '-')}", f"guest/{machine}") for machine in guests)
    for name, uri in [*((role, role) for role in ROLES), *own]:
        role, key = uri.partition("/")[0], ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ultrafolio {name}")])
        certificate = _signed(
            subject,
            key,
            ca_name,
            ca_key,
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (_usage(sign_certificates=False), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                (x509.SubjectAlternativeName(_names(role, uri)), False),
            ],
        )
        files |= {f"{name}.key": _pem(key), f"{name}.crt": certificate}
    # the authority's certificate is written last: if it exists, all files do
    return _write(folder, files | {"ca.crt": ca})


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> bytes:
    """Returns a certificate for `subject` and its key as PEM, signed by the issuer, valid from now."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # valid from an hour ago: clocks of two machines differ
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    """Returns the key usage of an authority (`sign_certificates`) or of a role."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(role: str, uri: str) -> list[x509.GeneralName]:
    """Returns the names in a role's certificate: its URI, its host names, and the loopback addresses."""
    hosts = ["localhost", server_name(role), *([HOSTS[role]] if role in HOSTS else [])]
    return [
        x509.UniformResourceIdentifier(URI + uri),
        *(x509.DNSName(host) for host in hosts),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")),
    ]


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write files, keys readable by the owner only, each whole or not at all. Returns their paths. InputError: it
    cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            mode = 0o600 if name.endswith(".key") else 0o644
            part = folder / f"{name}.part"
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
            os.replace(part, folder / name)
    except OSError as error:
        raise InputError(
            f"{folder}: certificates cannot be written",
            value=error.strerror or str(error),
            allowed="a folder that this user may write to",
        ) from None
    return [folder / name for name in files]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--guest", "guests", multiple=True, metavar="VM", help="Also one certificate for this guest alone.")
def main(folder: Path, guests: tuple[str, ...]) -> None:
    """Make a development authority and one certificate per role in FOLDER, valid 30 days."""
    try:
        for file in make(folder, guests):
            print(file)
    except InputError as error:
        print(f"services.launcher.certificates: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
