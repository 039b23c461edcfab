"""What the service is told by whoever runs it. Defaults are private: loopback, tokens, uploads only, no webhooks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from svad_ray.config import Export, Settings, load_settings, load_yaml, override
from svad_ray.errors import ConfigError, InputError

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "frames": ("animate.frames",),
    "size": ("animate.size",),
    "gaussians": ("avatar.gaussians",),
    "iterations": ("avatar.iterations",),
    "seed": ("perceive.seed", "animate.seed", "identity.seed", "restore.seed", "fit.seed", "avatar.seed", "picture.seed"),
    "largest": ("perceive.largest",),
    "bust": ("perceive.bust", "animate.bust"),
    "motion": ("animate.motion",),
}
"""What a caller may choose for an avatar: option -> dotted settings. Everything else is the operator's."""


class Limits(BaseModel):
    """Upper bounds of what one call may ask for.

    Attributes:
        frames, size, gaussians, iterations: Of an avatar's options. picture: Side of a rendered picture, pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    frames: int = Field(default=400, ge=1)
    size: int = Field(default=1024, ge=64)
    gaussians: int = Field(default=200_000, ge=100)
    iterations: int = Field(default=3000, ge=1)
    picture: int = Field(default=1024, ge=16)


class ServiceConfig(BaseModel):
    """All of the service.

    Attributes:
        store: Any fsspec address; everything the service knows lies below it.
        profile, settings: What avatars are made with: a profile, and dotted overrides ("avatar.gaussians": 20000).
        exports: Written for every avatar besides its folder.
        host, port: Where the server listens.
        require_tokens: False = whoever reaches the port may do everything; say so only where something else guards it.
        tokens_file: Names and hashes of tokens, see ``tokens``.
        requests_per_minute, open_avatars, streams: Of each token that has no limits of its own, per server process (open avatars: in all).
        max_upload_bytes, max_json_bytes, max_pixels: Larger bodies and photos are refused before they are read or decoded.
        consent_required: Refuse an avatar without a statement that the person agrees.
        uri_hosts, uri_schemes: From where photos may be fetched: "photos.example.org", "*.example.org", "host:8443"; none = uploads only.
        webhook_hosts, webhook_schemes: Whom the service may call at the end of an avatar, written likewise; none = no webhooks.
        private_hosts: Those of the two lists that may stand for loopback, link-local or private addresses.
        webhook_secret_env, webhook_secret_file: Where the signing secret is; the file wins.
        webhook_waits_s: Seconds before each further try.
        fetch_timeout_s: Longest time for one photo to arrive, or one webhook to answer.
        heartbeat_s: Silence in an event stream after which a comment keeps it alive. poll_s: Between two looks at the book.
        limits: Of single calls.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: str
    profile: Literal["embedded", "paper"] = "embedded"
    settings: Mapping[str, Any] = Field(default_factory=dict)
    exports: tuple[Export, ...] = ("ply", "turntable", "report")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    require_tokens: bool = True
    tokens_file: str = ""
    requests_per_minute: int = Field(default=120, ge=1)
    open_avatars: int = Field(default=4, ge=1)
    streams: int = Field(default=8, ge=1)
    max_upload_bytes: int = Field(default=32 << 20, ge=1024)
    max_json_bytes: int = Field(default=1 << 20, ge=1024)
    max_pixels: int = Field(default=50_000_000, ge=4096)
    consent_required: bool = True
    uri_hosts: tuple[str, ...] = ()
    uri_schemes: tuple[Literal["https", "http"], ...] = ("https",)
    webhook_hosts: tuple[str, ...] = ()
    webhook_schemes: tuple[Literal["https", "http"], ...] = ("https",)
    private_hosts: tuple[str, ...] = ()
    webhook_secret_env: str = "SVAD_WEBHOOK_SECRET"
    webhook_secret_file: str = ""
    webhook_waits_s: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0)
    fetch_timeout_s: float = Field(default=20.0, gt=0)
    heartbeat_s: float = Field(default=15.0, gt=0)
    poll_s: float = Field(default=0.5, gt=0)
    limits: Limits = Limits()

    @field_validator("store")
    @classmethod
    def _given(cls, value: str) -> str:
        if not value:
            raise ValueError("name a folder or an fsspec address")
        return value

    def base_settings(self) -> Settings:
        """What avatars are made with where the caller says nothing. Raises ``ConfigError``."""
        settings = load_settings(profile=self.profile)
        return override(settings, self.settings) if self.settings else settings

    def webhook_secret(self) -> bytes:
        """The key that webhooks are signed with.

        Raises:
            ConfigError: Webhooks are allowed, but there is none.
        """
        try:
            text = (
                Path(self.webhook_secret_file).read_text(encoding="utf-8")
                if self.webhook_secret_file
                else os.environ.get(self.webhook_secret_env, "")
            )
        except OSError as error:
            raise ConfigError(f"the webhook secret cannot be read: {error}", remedy="check webhook_secret_file") from error
        if len(text.strip()) < 16:
            raise ConfigError(
                "webhooks are allowed, but there is no secret to sign them with",
                expected="at least 16 characters",
                remedy=f"set the variable {self.webhook_secret_env}, or webhook_secret_file",
            )
        return text.strip().encode()


def load_service_config(path: str | Path | None = None, values: Mapping[str, Any] | None = None) -> ServiceConfig:
    """From a YAML file and plain values, which win.

    Raises:
        ConfigError: Unknown key or value out of range. InputError: The file cannot be read.
    """
    written: Any = {}
    if path:
        try:
            written = load_yaml(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the service configuration {path} cannot be read: {error}", remedy="check the path") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"the service configuration {path} is not YAML: {error}", expected="see docs/service.md") from error
    if not isinstance(written, dict):
        raise ConfigError(f"the service configuration {path} holds a {type(written).__name__}", expected="a mapping")
    try:
        return ServiceConfig.model_validate({**written, **(values or {})})
    except ValidationError as error:
        first = error.errors()[0]
        dotted = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{dotted} of the service configuration: {first['msg']}", remedy="see docs/service.md for every key") from None
