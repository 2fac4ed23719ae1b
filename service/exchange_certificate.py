"""A certificate for the exchange between nodes: made for one start of a trainer, and known to its own workers alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gradwire.assignment import EXCHANGE_NAME

VALID = timedelta(days=3650)
EARLIER = timedelta(days=1)
"""Clocks of nodes may differ."""


@dataclass(frozen=True, slots=True)
class ExchangeCertificate:
    """Both as PEM."""

    certificate: str
    key: str


def make_certificate(now: datetime | None = None) -> ExchangeCertificate:
    """Signs itself: workers get it with their assignment, by Ray, and trust nothing else."""
    # Only services with workers on other nodes need it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    begin = (now or datetime.now(UTC)) - EARLIER
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, EXCHANGE_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(EXCHANGE_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ExchangeCertificate(certificate.public_bytes(encoding).decode(), pem.decode())
