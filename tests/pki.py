"""A CA and certificates for one test, made with OpenSSL."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codealign.common.clients import ClientTls

NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:{name}.lab.svc"
_NEW = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Authority:
    """A certificate authority that writes to its directory."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """Create a CA."""
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder)
        made._openssl(*_NEW, "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority")
        return made

    @property
    def certificate(self) -> Path:
        """The CA's own certificate."""
        return self.folder / "ca.crt"

    def sign(self, name: str, subject: str = "", days: int = 30, more: Sequence[str] = ()) -> ClientTls:
        """Issue a certificate for a client or server, as files.

        Args:
            name: Of the files.
            subject: As in `/CN=coordinator`, which it is by default for `coordinator`.
            days: Until it expires; -1: yesterday.
            more: Options of `openssl req`.
        """
        (self.folder / f"{name}.names").write_text(NAMES.format(name=name))
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject or f"/CN={name}")
        self._openssl(*_NEW, "-utf8", *request, *more)
        sign = ("x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", str(days))
        self._openssl(*sign, "-extfile", f"{name}.names", "-in", f"{name}.csr", "-out", f"{name}.crt")
        return ClientTls(self.certificate, self.folder / f"{name}.crt", self.folder / f"{name}.key")

    def server(self, name: str = "server", days: int = 30) -> dict[str, str]:
        """Return the settings of a server that requires certificates of this CA."""
        made = self.sign(name, days=days)
        files = {"tls_cert_file": made.cert_file, "tls_key_file": made.key_file, "tls_client_ca_file": made.ca_file}
        return {setting: str(path) for setting, path in files.items()}

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
