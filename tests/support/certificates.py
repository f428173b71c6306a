"""Creates a self-signed certificate for test servers on 127.0.0.1."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devtools.processes import LOOPBACK


@dataclass(frozen=True)
class Certificate:
    """PEM files. Clients that trust `certificate` can connect to a server with `server_context`."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context for the server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def self_signed(
    directory: Path,
    *,
    address: str = LOOPBACK,
    valid_from: timedelta = timedelta(hours=-1),
    valid_until: timedelta = timedelta(days=1),
) -> Certificate:
    """Create a certificate for an IP address; its times are relative to now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test server")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid_from)
        .not_valid_after(now + valid_until)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    created = Certificate(directory / "certificate.pem", directory / "key.pem")
    created.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    created.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return created
