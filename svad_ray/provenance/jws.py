"""Plain values, signed: JSON Web Signature (RFC 7515) with Ed25519 (RFC 8037) and the signer's certificates (``x5c``), as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from svad_ray.provenance.identity import Identity


class Broken(Exception):
    """A record that is no signed record, or was changed after it was signed."""


@dataclass(frozen=True)
class Signed:
    """What was signed, and by whom: PEM of the root's certificate."""

    payload: dict[str, Any]
    root: bytes


def sign(payload: Mapping[str, Any], by: Identity) -> bytes:
    """The record as a file's content; equal payloads of one installation give equal bytes."""
    from cryptography.hazmat.primitives.serialization import Encoding

    chain = [base64.b64encode(c.public_bytes(Encoding.DER)).decode() for c in by.certificates]
    head = _packed({"alg": "EdDSA", "typ": "JOSE+JSON", "x5c": chain})
    body = _packed(payload)
    signature = _url64(by.private.sign(f"{head}.{body}".encode()))
    return json.dumps({"payload": body, "protected": head, "signature": signature}, indent=1).encode()


def read(content: bytes) -> Signed:
    """The record that ``sign`` made.

    Raises:
        Broken: It is none, its signature is wrong, or its certificates do not belong together.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        says = json.loads(content)
        head, body, signature = says["protected"], says["payload"], _from64(says["signature"])
        own, root = (x509.load_der_x509_certificate(base64.b64decode(text)) for text in _unpacked(head)["x5c"])
        if _unpacked(head)["alg"] != "EdDSA":
            raise Broken("the record is not signed with Ed25519")
        own.verify_directly_issued_by(root)
        root.verify_directly_issued_by(root)
        key = own.public_key()
        if not isinstance(key, Ed25519PublicKey):
            raise Broken("the signer's key is not Ed25519")
        key.verify(signature, f"{head}.{body}".encode())
        return Signed(_unpacked(body), root.public_bytes(Encoding.PEM))
    except InvalidSignature as error:
        raise Broken("the signature is wrong: the record was changed after it was signed") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"this is no signed record ({error})") from error


def _packed(values: Mapping[str, Any]) -> str:
    return _url64(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def _unpacked(text: str) -> dict[str, Any]:
    values = json.loads(_from64(text))
    if not isinstance(values, dict):
        raise ValueError("not an object")
    return values


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _from64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
