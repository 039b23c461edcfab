"""One subject's order: who, which photo, made how."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from svad_ray import __version__
from svad_ray.config import Settings, parse_settings
from svad_ray.store import Key, content_key

_MACHINE_ONLY = {"threads", "offline", "cache_dir", "signing"}  # settings that do not change a result
_SLUG = 40


@dataclass(frozen=True)
class SubjectRequest:
    """What one subject's avatar is made from.

    Attributes:
        subject_id: The caller's name for the subject, any text.
        uri: The photo: a path or an fsspec address.
        settings: Of the run.
        sha256: Of the photo's bytes; when given, other bytes are refused.
        consent: The statement that the person agrees.
        prompt: What the photo shall be changed to; without a ``uri`` the photo is drawn from it.
    """

    subject_id: str
    uri: str
    settings: Settings = field(default_factory=Settings)
    sha256: str = ""
    consent: str = ""
    prompt: str = ""

    @cached_property
    def key(self) -> Key:
        """Name of the finished subject: equal orders have equal keys. A photo that changes at the same address needs ``sha256`` to be noticed."""
        settings = self.settings.model_dump(mode="json", exclude=_MACHINE_ONLY if self.prompt else {*_MACHINE_ONLY, "picture"})
        parameters = {"settings": settings, "consent": self.consent, "svad_ray": __version__} | ({"prompt": self.prompt} if self.prompt else {})
        return content_key(folder_name(self.subject_id), version=1, parameters=parameters, inputs=[self.sha256 or self.uri])

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        return {**asdict(self), "settings": self.settings.model_dump(mode="json")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SubjectRequest:
        """The request that ``to_json`` wrote."""
        return cls(**{**values, "settings": parse_settings(values["settings"])})


def folder_name(subject_id: str) -> str:
    """A folder's name for any id: what is readable of it, and a hash that keeps different ids apart. An id never becomes a path."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", subject_id)[:_SLUG].strip("-")
    return f"{readable or 'subject'}-{hashlib.sha256(subject_id.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"
