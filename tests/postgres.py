"""A real PostgreSQL server for the tests: in a folder of its own, on loopback, under a user without rights."""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

OWNER = "lvlm2p"
"""The server's first user, who needs no password; ``locked``, whom a test may make, does."""

_HBA = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"


def _program(name):
    """PostgreSQL's own program; Debian keeps the newest apart from the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda file: int(file.parts[-3]))
    return found[-1] if found else shutil.which(name)


def _unprivileged():
    """As whom the server runs, since it refuses root: none means ourselves."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class PostgresServer:
    """A server that can be stopped and begun again; leaving its ``with`` block deletes it."""

    def __init__(self):
        self.psycopg = pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
        if _program("initdb") is None:
            pytest.skip("there is no PostgreSQL here (Debian: apt-get install postgresql)")
        self._schemas = itertools.count(1)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def __enter__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="lvlm2p-postgres-"))
        as_whom = _unprivileged()
        if as_whom:
            os.chown(self._folder, as_whom["user"], as_whom["group"])
        init = [_program("initdb"), "-D", self._folder / "data", "-U", OWNER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        # A language's order of texts, as on most servers: it is not ours.
        subprocess.run([*init, "--locale=C.UTF-8"], check=True, capture_output=True, cwd="/", **as_whom)
        (self._folder / "data" / "pg_hba.conf").write_text(_HBA)
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self._folder)

    def start(self):
        """Begin, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        settings |= {"shared_buffers": "16MB", "max_connections": 60}
        command = [_program("postgres"), "-D", self._folder / "data"]
        command += itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
        # In a session of its own, so that Ctrl-C does not end it before the tests.
        options = {**_unprivileged(), "cwd": "/", "start_new_session": True}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.sql("SELECT 1")
            except self.psycopg.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self, how=signal.SIGINT):
        """End: SIGINT breaks off what is under way, SIGQUIT ends as a crash does."""
        self._process.send_signal(how)
        self._process.wait(60)

    def sql(self, statement, values=()):
        """Run a statement as the owner; its rows, if it has any."""
        address = f"host=127.0.0.1 port={self.port} user={OWNER} dbname=postgres"
        with self.psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def url(self, user=OWNER, database="postgres", schema=None):
        """The URL of a store in a schema of its own, as a user names it."""
        if schema is None:
            schema = f"store_{next(self._schemas)}"
            self.sql(f"CREATE SCHEMA {schema}")
        place = f"{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql+psycopg://{place}?options=-csearch_path%3D{schema}"
