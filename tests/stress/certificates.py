"""Certificates, good and bad, made by openssl for one experiment."""

import shutil
import subprocess
from pathlib import Path

from tests.stress.experiment import Missing

HOST = "127.0.0.1"
BAD = ("expired", "wrong_host", "self_signed")
_CONFIG = """
[ca]
default_ca = own
[own]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
certificate = {folder}/ca.crt
private_key = {folder}/ca.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


class Certificates:
    """An authority of its own; `root` is what a client trusts, and NAME.crt with server.key what a server shows."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("openssl"):
            raise Missing("openssl is not installed")
        folder.mkdir()
        self.folder = folder
        self.root = folder / "ca.crt"
        (folder / "index").touch()
        (folder / "serial").write_text("01\n")
        (folder / "ca.conf").write_text(_CONFIG.format(folder=folder))
        for name in ("ca", "server"):
            self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        self._openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=own", "-days", "2", "-out", "ca.crt")
        self._signed("good", f"IP:{HOST}")
        self._signed("wrong_host", "DNS:other.stress.test")
        self._signed("expired", f"IP:{HOST}", "-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
        self._openssl(
            "req", "-x509", "-new", "-key", "server.key", "-subj", f"/CN={HOST}", "-days", "2",
            "-addext", f"subjectAltName=IP:{HOST}", "-out", "self_signed.crt",
        )  # fmt: skip

    def _signed(self, name: str, host: str, *validity: str) -> None:
        self._openssl(
            "req", "-new", "-key", "server.key", "-subj", "/CN=server", "-addext", f"subjectAltName={host}",
            "-out", f"{name}.csr",
        )  # fmt: skip
        self._openssl(
            "ca", "-batch", "-notext", "-config", "ca.conf", "-in", f"{name}.csr", "-out", f"{name}.crt",
            *(validity or ("-days", "2")),
        )  # fmt: skip

    def _openssl(self, *words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"openssl {words[0]}: {done.stderr[-500:]}")
