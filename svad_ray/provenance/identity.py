"""What an installation signs with: an Ed25519 key, and its certificate under a root of the installation's own.

Made at the first export and kept in one folder: ``--set signing=FOLDER``, else the variable SVAD_SIGNING, else the user's configuration folder.
Machines that share the folder's content sign as one. The root's own key is thrown away when the certificate is made, so it can certify nobody else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from svad_ray.errors import InputError, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509 import Certificate

KEY, CHAIN, ROOT = "key.pem", "certificate.pem", "root.pem"
ORGANISATION = "svad-ray installation"
_FROM, _UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2045, 1, 1, tzinfo=UTC)  # no clock: a wrong one would make signatures invalid


@dataclass(frozen=True)
class Identity:
    """A key that signs.

    Attributes:
        key: PEM of the private key. chain: PEM of its certificate and the root's. folder: Where both lie.
    """

    key: bytes
    chain: bytes
    folder: Path

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key itself."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(self.key, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(
                f"{self.folder / KEY} is a {type(key).__name__}", expected="an Ed25519 key", remedy="remove the folder: a new one is made"
            )
        return key

    @property
    def certificates(self) -> list[Certificate]:
        """Its own, then the root."""
        from cryptography.x509 import load_pem_x509_certificates

        return load_pem_x509_certificates(self.chain)

    @property
    def root(self) -> bytes:
        """PEM of the root's certificate: what others need to recognise this installation."""
        return _pem(self.certificates[-1])


def signing_folder(folder: str = "") -> Path:
    """Where the key is, or will be."""
    return Path(folder or os.environ.get("SVAD_SIGNING") or Path(platformdirs.user_config_dir("svad-ray")) / "signing").expanduser()


def identity(folder: str = "") -> Identity:
    """The installation's key; made if there is none.

    Raises:
        StoreError: It cannot be made there. InputError: What lies there is no key.
    """
    place = signing_folder(folder)
    try:
        if not (place / KEY).exists():
            _make(place)
        found = Identity((place / KEY).read_bytes(), (place / CHAIN).read_bytes(), place)
    except OSError as error:
        raise StoreError(
            f"the signing key in {place} cannot be used: {error}", remedy="--set signing=FOLDER, or the variable SVAD_SIGNING"
        ) from error
    try:
        if found.private.public_key() != found.certificates[0].public_key():
            raise ValueError("key and certificate do not belong together")
    except ValueError as error:
        raise InputError(f"the signing key in {place} cannot be used: {error}", remedy="remove the folder: a new one is made") from error
    return found


def fingerprint(root: bytes) -> str:
    """Short name of an installation: sha256 of its root's certificate, 16 digits."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return x509.load_pem_x509_certificate(root).fingerprint(hashes.SHA256()).hex()[:16]


def _make(place: Path) -> None:
    """Make the folder at once: of several processes the first one's key counts."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".signing-", dir=place.parent))  # readable by the owner alone
    try:
        key, chain, root = _new()
        for name, content in ((CHAIN, chain), (ROOT, root), (KEY, key)):
            with open(os.open(staged / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(content)
        try:
            staged.rename(place)
        except OSError:
            if not (place / KEY).exists():
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _new() -> tuple[bytes, bytes, bytes]:
    """PEM of a new key, of its chain of certificates, and of the root."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    root_key, key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    root, own = _certificate("root", root_key, root_key), _certificate("exports", key, root_key)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _pem(own) + _pem(root), _pem(root)


def _certificate(name: str, key: Ed25519PrivateKey, issuer: Ed25519PrivateKey) -> Certificate:
    """As C2PA's certificate profile asks: the key's own is no authority, may sign, and has an extended use."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    is_root = key is issuer
    builder = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name("root")).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_FROM).not_valid_after(_UNTIL)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False)
    builder = builder.add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=is_root, crl_sign=is_root, **usage), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    if not is_root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer, None)


def _name(part: str) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    words = ((NameOID.COMMON_NAME, f"svad-ray {part}"), (NameOID.ORGANIZATION_NAME, ORGANISATION))
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in words])


def _pem(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)
