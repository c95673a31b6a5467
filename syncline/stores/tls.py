"""TLS settings: `sslmode` and related parameters, as the context that the driver takes."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import SecretStr

from syncline.stores.conninfo import ConnectionStringInvalid

__all__ = ["Tls", "TlsMode", "tls_of"]

TlsMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

_MODES: Final[tuple[TlsMode, ...]] = get_args(TlsMode)
_SYSTEM: Final = "system"
_VERSIONS: Final = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
_OF_A_CONTEXT: Final = (
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslrootcert",
)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How a connection is encrypted, and whether the server must prove its identity."""

    mode: TlsMode
    roots: Path | Literal["system"] | None = None
    """Trusted certificates; None verifies nothing."""
    revoked: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: SecretStr | None = None
    minimum: str = "TLSv1.2"
    maximum: str | None = None
    direct: bool = False

    @property
    def verified(self) -> bool:
        """Whether only a server with a trusted certificate is accepted."""
        return self.roots is not None and self.mode in ("require", "verify-ca", "verify-full")

    def for_driver(self) -> ssl.SSLContext | str | Literal[False]:
        """Return the driver's `ssl` argument; files are read each time, so they may be renewed.

        Raises ConnectionStringInvalid when a file cannot be used.
        """
        if self.mode == "disable":
            return False
        if self.mode in ("allow", "prefer"):
            return self.mode
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.mode == "verify-full"
        context.verify_mode = ssl.CERT_NONE if self.roots is None else ssl.CERT_REQUIRED
        context.minimum_version = _VERSIONS[self.minimum]
        if self.maximum is not None:
            context.maximum_version = _VERSIONS[self.maximum]
        if ssl.HAS_ALPN:
            context.set_alpn_protocols(["postgresql"])
        if self.roots == _SYSTEM:
            context.load_default_certs()
        elif self.roots is not None:
            roots = self.roots
            _loaded("sslrootcert", lambda: context.load_verify_locations(roots))
        if self.revoked is not None:
            revoked = self.revoked
            _loaded("sslcrl", lambda: context.load_verify_locations(revoked))
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if self.certificate is not None:
            certificate = self.certificate
            # Without a password OpenSSL would prompt at the terminal.
            secret = "" if self.key_password is None else self.key_password.get_secret_value()
            _loaded(
                "sslcert or sslkey", lambda: context.load_cert_chain(certificate, self.key, lambda: secret)
            )
        return context


def tls_of(text: Callable[[str], str | None], *, tcp: bool) -> Tls:
    """Build the TLS settings from parameters read by `text`; raise ConnectionStringInvalid.

    `tcp`: whether any host is not a Unix socket: over a socket there is no TLS, and it would protect nothing.
    """
    if not tcp:
        return Tls(mode="disable")
    given = text("sslmode")
    roots = text("sslrootcert")
    mode = _mode(given, system=roots == _SYSTEM)
    bound = text("channel_binding") or "prefer"
    if bound not in ("disable", "prefer", "require"):
        raise ConnectionStringInvalid("parameter channel_binding is one of disable, prefer, require")
    if bound == "require":
        # The driver cannot do channel binding. A verified certificate stops the same attacker, so it is
        # required instead, never less.
        if given in ("disable", "allow"):
            raise ConnectionStringInvalid("channel_binding=require needs sslmode=require or stronger")
        mode, roots = "verify-full", roots or _default("root.crt") or _SYSTEM
    if mode in ("disable", "allow", "prefer"):
        for name in _OF_A_CONTEXT:
            if text(name) is not None and mode != "disable":
                raise ConnectionStringInvalid(
                    f"parameter {name} has no effect unless sslmode is require, verify-ca or verify-full"
                )
        if text("sslnegotiation") == "direct":
            raise ConnectionStringInvalid("sslnegotiation=direct needs sslmode=require or stronger")
        return Tls(mode=mode)
    roots = roots or _default("root.crt")
    if roots is None and mode != "require":
        raise ConnectionStringInvalid(
            f"sslmode={mode} needs sslrootcert: a file of certificates to trust, or `system` for those of "
            "this machine (with verify-full)"
        )
    certificate, key = text("sslcert") or _default("postgresql.crt"), text("sslkey")
    secret = text("sslpassword")
    tls = Tls(
        mode=mode,
        roots=_trusted(roots),
        revoked=_path(text("sslcrl") or _default("root.crl")) if roots is not None else None,
        certificate=_path(certificate),
        key=_path(key or (None if certificate is None else _default("postgresql.key"))),
        key_password=None if secret is None else SecretStr(secret),
        minimum=_version("ssl_min_protocol_version", text) or "TLSv1.2",
        maximum=_version("ssl_max_protocol_version", text),
        direct=_direct(text("sslnegotiation")),
    )
    tls.for_driver()
    return tls


def _mode(given: str | None, *, system: bool) -> TlsMode:
    if given is not None and given not in _MODES:
        raise ConnectionStringInvalid(f"parameter sslmode is one of {', '.join(_MODES)}")
    if system and given not in (None, "verify-full"):
        raise ConnectionStringInvalid("sslrootcert=system needs sslmode=verify-full")
    for mode in _MODES:
        if mode == given:
            return mode
    return "verify-full" if system else "prefer"


def _trusted(roots: str | None) -> Path | Literal["system"] | None:
    return "system" if roots == _SYSTEM else _path(roots)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def _default(name: str) -> str | None:
    """Return libpq's default file for a missing parameter, if it exists."""
    try:
        path = Path.home() / ".postgresql" / name
        return str(path) if path.is_file() else None
    except (RuntimeError, OSError):
        return None


def _version(name: str, text: Callable[[str], str | None]) -> str | None:
    value = text(name)
    if value is not None and value not in _VERSIONS:
        raise ConnectionStringInvalid(f"parameter {name} is one of {', '.join(_VERSIONS)}")
    return value


def _direct(value: str | None) -> bool:
    if value not in (None, "postgres", "direct"):
        raise ConnectionStringInvalid("parameter sslnegotiation is one of postgres, direct")
    return value == "direct"


def _loaded(names: str, load: Callable[[], None]) -> None:
    problem = None
    try:
        load()
    except ssl.SSLError as error:
        problem = f"{error.reason or 'it is none'}".replace("_", " ").lower()
    except (OSError, ValueError) as error:
        # Its text has the path, which is part of the connection string.
        problem = (getattr(error, "strerror", None) or "it is none").lower()
    if problem is not None:
        raise ConnectionStringInvalid(f"the file that {names} names cannot be used ({problem})")
