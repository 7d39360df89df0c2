"""The store that a teacher asks before it pays, and writes to as soon as it has paid."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import platformdirs
from sqlalchemy import Connection
from sqlalchemy.exc import StatementError

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer, Call
from lvlm2p_wrappers.redaction import key_remover
from lvlm2p_wrappers.store import migrations, parts, tables
from lvlm2p_wrappers.store.sqlite import Sqlite, disconnect
from lvlm2p_wrappers.store.tables import Statement

DEFAULT = "default"

_LONGEST_CLAIM_S = 86_400.0  # a claim that pretends to hold longer is none of ours: nobody shall wait for it

# The threads of a process share a store's one connection, under the store's lock. SQLite's locks do not survive a fork:
# before it, every store is locked and its connection closed; it is opened again when next used.
_STORES: weakref.WeakValueDictionary[str, Store] = weakref.WeakValueDictionary()  # by token
_STORES_LOCK = threading.Lock()
_LOCKED_FOR_FORK: list[Store] = []

_GET = Statement("SELECT text, model FROM answers WHERE key = :key")
_CLAIMED = Statement("SELECT owner, expires FROM claims WHERE key = :key")
_RENEW = Statement("UPDATE claims SET expires = :expires WHERE owner = :owner")
_RELEASE = Statement("DELETE FROM claims WHERE key = :key AND owner = :owner")
_RELEASE_ALL = Statement("DELETE FROM claims WHERE owner = :owner")
_RELEASE_EXPIRED = Statement("DELETE FROM claims WHERE expires < :now")
# `gone` and `then` are of a claim that is worth nothing any more: if somebody took it over meanwhile, it is theirs.
_CLAIM = Statement("""
    INSERT INTO claims (key, owner, expires)
    SELECT :key, :owner, :expires WHERE NOT EXISTS (SELECT 1 FROM answers WHERE answers.key = :key)
    ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, expires = excluded.expires
    WHERE claims.owner = :owner OR (claims.owner = :gone AND claims.expires = :then)
""")


class Store:
    """Answers by key, and a log of every call; shared by threads, forks and processes.

    Each method is one transaction. A closed store opens again when it is used.

    >>> store = Store(None)
    >>> store.get("a digest") is None
    True

    Args:
        location: a path; ``"default"`` for ``$LVLM2P_STORE``, or ``teacher.sqlite`` in the user's cache folder; None to
            keep answers in memory only, and no log.
        read_only: whether it is only read; the file may then lie where it cannot be written.

    Raises:
        StoreError: the file cannot be written, is no store, or was written by a newer version. Every method raises it
            where the database fails (a full disk, say).
    """

    def __init__(self, location: str | Path | None = DEFAULT, *, read_only: bool = False) -> None:
        self.file = locate(location)
        self.engine = Sqlite(self.file, read_only=read_only)
        self._token = secrets.token_hex(8)
        self._claims: set[str] = set()
        self._connection: Connection | None = None
        self._lock = threading.RLock()
        with _STORES_LOCK:
            _STORES[self._token] = self
        with self._connected():
            pass

    @property
    def path(self) -> str:
        """Where the store is, for people to read."""
        return self.engine.name

    def get(self, key: str) -> Answer | None:
        """Return the answer stored under a key, or None."""
        with self._connected() as connection:  # a single statement needs no transaction
            return self._answer(connection, key)

    def get_or_claim(self, key: str, *, seconds: float) -> Answer | bool:
        """Return a question's answer; without one, whether this store may ask it now.

        A claim is a lease: it ends after ``seconds``, or as soon as its process on this host is dead. While somebody
        else holds it the result is False, and nothing is written: call again later.

        Args:
            key: of the question.
            seconds: how long the question is left to this store; :meth:`renew` prolongs that.

        Returns:
            The answer; else True if this store has now claimed the key, and False if somebody else is asking.
        """
        now = time.time()
        with self.transaction() as connection:
            if (answer := self._answer(connection, key)) is not None:
                return answer
            owner, until = _CLAIMED.on(connection, {"key": key}).row or ("", 0.0)
            if owner not in ("", self._owner) and _holds(owner, until, now):
                return False
            values = {"key": key, "owner": self._owner, "expires": now + seconds, "gone": owner, "then": until}
            if _CLAIM.on(connection, values).rowcount != 1:  # answered or claimed since it was looked up
                return self._answer(connection, key) or False
        self._claims.add(key)
        return True

    def record(self, call: Call, answer: Answer | None = None) -> Answer | None:
        """Log a call and, if it brought one, store its answer; when this returns, `kill -9` takes neither.

        The first answer to a key stays. Storing one also ends this store's claim on the key. The keys of the
        environment are struck out of all that is written.

        Returns:
            The answer as it was written.
        """
        now = time.time()
        without_keys = key_remover()

        def clean(text: str) -> str:  # JSON may hold lone surrogates, UTF-8 may not
            return without_keys(text).encode(errors="backslashreplace").decode()

        with self.transaction() as connection:
            if self.file is not None:
                _log(connection, call, now, clean)
            if answer is not None:
                answer = Answer(*map(clean, answer))
                tables.ADD_ANSWER.on(connection, {"key": call.key, **answer._asdict(), "at": now})
                self._drop_claim(connection, call.key)
        return answer

    def how_to_drop(self, key: str) -> str:
        """Return the way out for whoever finds an answer that cannot be used."""
        command = f"lvlm2p store prune --key {key} --store {shlex.quote(self.path)} --yes"
        return f"Drop it with `{command}`, and it will be asked for again."

    def renew(self, *, seconds: float) -> None:
        """Let this store's claims hold for so long from now on."""
        with self.transaction() as connection:
            _RENEW.on(connection, {"owner": self._owner, "expires": time.time() + seconds})

    def release(self, *keys: str) -> None:
        """End this store's claims on keys, as far as it has any, in one transaction."""
        if held := self._claims.intersection(keys):
            with self.transaction() as connection:
                for key in held:
                    self._drop_claim(connection, key)

    def close(self) -> None:
        """End all claims of this store and free its connection; closing it again does nothing."""
        with self._lock:
            try:
                # Where the database fails, the claims end with their time.
                with contextlib.suppress(StoreError):
                    if self._claims:
                        with self.transaction() as connection:
                            _RELEASE_ALL.on(connection, {"owner": self._owner})
            finally:
                self._claims.clear()
                self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """Lend the connection for one transaction, to nobody else of this process meanwhile.

        Args:
            snapshot: whether all that is read has to be of one moment.
        """
        with self._lock:
            if self._connection is not None and not self.engine.is_current():
                self._disconnect()
            with self._connected() as connection, connection.begin():
                if snapshot:
                    self.engine.begin_snapshot(connection)
                yield connection

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._lock:
            try:
                yield self._connection or self._connect()
            except (StatementError, OverflowError, UnicodeError) as problem:  # the driver raises the last two itself
                raise self.engine.error_for(problem) from problem

    def _connect(self) -> Connection:
        connection = self.engine.connect()
        try:
            migrations.migrate(connection, self.path, read_only=self.engine.read_only)
            if not self.engine.read_only:
                with connection.begin():  # which proves, before anything is paid for, that the store can be written
                    _RELEASE_EXPIRED.on(connection, {"now": time.time()})
        except BaseException:
            disconnect(connection)
            raise
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            disconnect(self._connection)
            self._connection = None

    def _answer(self, connection: Connection, key: str) -> Answer | None:
        row = _GET.on(connection, {"key": key}).row
        if row is not None and not all(isinstance(value, str) for value in row):
            raise StoreError(f"the store {self.path} has an answer that is no text. {self.how_to_drop(key)}")
        return None if row is None else Answer(*row)

    @property
    def _owner(self) -> str:
        return f"{socket.gethostname()}:{os.getpid()}:{self._token}"  # another one after a fork

    def _drop_claim(self, connection: Connection, key: str) -> None:
        if key in self._claims:
            _RELEASE.on(connection, {"key": key, "owner": self._owner})
            self._claims.discard(key)


def _before_fork() -> None:
    _STORES_LOCK.acquire()
    for store in list(_STORES.values()):
        store._lock.acquire()
        _LOCKED_FOR_FORK.append(store)
        if store.file is not None:  # a database in memory is copied whole, and has no locks to lose
            store._disconnect()


def _after_fork() -> None:
    while _LOCKED_FOR_FORK:
        _LOCKED_FOR_FORK.pop()._lock.release()
    _STORES_LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def locate(location: str | Path | None) -> Path | None:
    """Return the file that a store's location means; None for a store in memory.

    Raises:
        StoreError: it cannot be the name of a file.
    """
    if location is None:
        return None
    if location == DEFAULT:
        location = os.environ.get("LVLM2P_STORE") or platformdirs.user_cache_path("lvlm2p") / "teacher.sqlite"
    if "://" in str(location):
        raise StoreError(f"the store {str(location)!r} is a URL: give the path of a file, or None to keep nothing.")
    try:
        if "\0" in str(location):
            raise ValueError("it has a zero byte")
        file = Path(location).expanduser().absolute()
        is_folder = file.is_dir()
    except (OSError, ValueError, RuntimeError) as problem:  # it may be too long, or name an unknown user's home
        raise StoreError(f"the store {str(location)[:400]!r} is no path of a file: {problem}.") from None
    if is_folder:
        raise StoreError(
            f"the store {file} is a folder: give the path of a file in it, such as {file / 'teacher.sqlite'}."
        )
    return file


def _holds(owner: str, until: float, now: float) -> bool:
    """Whether somebody else's claim is still worth something; a store may come from anywhere, and claim anything."""
    try:
        host, number, token = owner.rsplit(":", 2)
        process = int(number)
        if process <= 0 or not now <= until < now + _LONGEST_CLAIM_S:
            return False
    except (AttributeError, TypeError, ValueError):
        return False
    if host != socket.gethostname() or sys.platform == "win32":  # where nothing can be known, the claim's time decides
        return True
    if process == os.getpid():  # one of our own stores, or a dead process that had our number, as in a container
        return token in _STORES
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _log(connection: Connection, call: Call, now: float, clean: Callable[[str], str]) -> None:
    layout = parts.pack_text(clean(call.schema_text))
    needed, messages = [layout], list[dict[str, Any]]()
    for message in call.messages:
        words = parts.pack_text(clean(message.text))
        picture = None if message.picture is None else parts.pack_png(message.picture.png)
        needed += [words] if picture is None else [words, picture]
        messages.append({"role": message.role, "text": words.digest, "png": picture and picture.digest})
    tables.ADD_PART.on(connection, [part._asdict() for part in needed])
    row = {name: clean(value) if isinstance(value, str) else value for name, value in vars(call).items()}
    del row["messages"], row["schema_text"]
    tables.add_call(connection, row | {"uid": uuid.uuid4().hex, "at": now, "schema": layout.digest}, messages)
