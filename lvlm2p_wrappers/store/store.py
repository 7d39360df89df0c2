"""The store, where every answer is looked up before it is paid for, and stored as soon as it has arrived."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import StatementError

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer, Call
from lvlm2p_wrappers.redaction import key_remover
from lvlm2p_wrappers.store import migrations, processes, statements
from lvlm2p_wrappers.store.location import DEFAULT, engine_at, locate
from lvlm2p_wrappers.store.sqlite import disconnect

T = TypeVar("T")


class Store:
    """Answers by key, and a log of every call; shared by threads, forks and processes.

    Each method is one transaction. A closed store opens again when it is used.

    >>> store = Store(None)
    >>> store.get("a digest") is None
    True

    Args:
        location: a path; ``postgresql+psycopg://USER@HOST/DATABASE``; ``"default"`` for ``$LVLM2P_STORE``, or
            ``teacher.sqlite`` in the user's cache folder; None to keep answers in memory only, and no log.
        read_only: whether it is only read; the file may then lie where it cannot be written.

    Raises:
        StoreError: it cannot be written, is no store, or was written by a newer version. Every method raises it where
            the database fails (a full disk, say); a server that goes away later is waited for first.
    """

    def __init__(self, location: str | Path | URL | None = DEFAULT, *, read_only: bool = False) -> None:
        place = locate(location)
        self.engine = engine_at(place, read_only=read_only)
        self._file = place if isinstance(place, Path) else None
        self._token = secrets.token_hex(8)
        self._claims: set[str] = set()
        self._connection: Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._lock = threading.RLock()
        processes.register(self._token, self)
        with self._connected():
            pass

    @property
    def path(self) -> str:
        """Where the store is, for people to read."""
        return self.engine.name

    def get(self, key: str) -> Answer | None:
        """Return the answer stored under a key, or None."""
        return self.run(lambda connection: self._answer(connection, key))

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
        found = self.run(lambda connection: self._answer(connection, key) or self._claim(connection, key, seconds))
        if found is True:
            self._claims.add(key)
        return found

    def record(self, call: Call, answer: Answer | None = None) -> Answer | None:
        """Log a call and, if it brought one, store its answer; when this returns, `kill -9` takes neither.

        The first answer to a key stays. Storing one also ends this store's claim on the key. The keys of the
        environment are struck out of all that is written.

        Returns:
            The answer as it was written.
        """
        now, uid, without_keys = time.time(), uuid.uuid4().hex, key_remover()

        def clean(text: str) -> str:  # JSON may hold lone surrogates, UTF-8 may not
            return without_keys(text).encode(errors="backslashreplace").decode()

        cleaned = None if answer is None else Answer(*map(clean, answer))

        def write(connection: Connection) -> None:
            if not self.engine.in_memory:
                statements.log_call(connection, call, uid, now, clean)
            if cleaned is not None:
                statements.ADD_ANSWER.on(connection, {"key": call.key, **cleaned._asdict(), "at": now})
                if call.key in self._claims:
                    statements.RELEASE.on(connection, {"key": call.key, "owner": self.owner})

        try:
            self.run(write)
        except StoreError as error:
            raise self.engine.rescued(error, call, cleaned) from error
        if cleaned is not None:
            self._claims.discard(call.key)
        return cleaned

    def how_to_drop(self, key: str) -> str:
        """Return the way out for whoever finds an answer that cannot be used."""
        command = f"lvlm2p store prune --key {key} --store {shlex.quote(self.path)} --yes"
        return f"Drop it with `{command}`, and it will be asked for again."

    def renew(self, *, seconds: float) -> None:
        """Let all leases of this store hold for so long from now on."""

        def renew(connection: Connection) -> None:
            values = {"owner": self.owner, "expires": self.now(connection) + seconds}
            for statement in statements.RENEW:
                statement.on(connection, values)

        self.run(renew)

    def release(self, *keys: str) -> None:
        """End this store's claims on keys, as far as it has any, in one transaction."""
        if held := self._claims.intersection(keys):
            own: list[Mapping[str, str]] = [{"key": key, "owner": self.owner} for key in sorted(held)]
            self.run(lambda connection: statements.RELEASE.on(connection, own))
            self._claims -= held

    def close(self) -> None:
        """End all claims of this store and free its connection; closing it again does nothing."""
        with self._lock:
            try:
                # Where the database fails, the claims end with their time.
                with contextlib.suppress(StoreError):
                    if self._claims:
                        with self.transaction() as connection:
                            statements.RELEASE_ALL.on(connection, {"owner": self.owner})
            finally:
                self._claims.clear()
                self._disconnect()

    def before_fork(self) -> None:
        """Keep everybody else off it, and close its connection, which is opened again when next used."""
        self._lock.acquire()
        if not self.engine.in_memory:  # which is copied whole, and has no locks to lose
            self._disconnect()

    def after_fork(self) -> None:
        """Let them in again."""
        self._lock.release()

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
            if self._opened != _identity(self._file):
                self._disconnect()
            with self._connected() as connection, connection.begin():
                if snapshot:
                    self.engine.begin_snapshot(connection)
                yield connection

    def run(self, work: Callable[[Connection], T]) -> T:
        """Work in a transaction; where a server went away, again once it is back."""
        while True:
            try:
                with self.transaction() as connection:
                    return work(connection)
            except StoreError as error:
                if not self.engine.is_back(error):
                    raise

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._lock:
            try:
                yield self._connection or self._connect()
            except (StatementError, OverflowError, UnicodeError) as problem:  # the driver raises the last two itself
                error = self.engine.error_for(problem)
                if self.engine.is_gone():
                    self._disconnect()
                raise error from problem

    def _connect(self) -> Connection:
        connection = self.engine.connect()
        self._opened = _identity(self._file)
        try:
            migrations.migrate(connection, self.engine)
            if not self.engine.read_only:
                with connection.begin():  # which proves, before anything is paid for, that the store can be written
                    statements.RELEASE_EXPIRED.on(connection, {"now": self.now(connection)})
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
        row = statements.GET.on(connection, {"key": key}).row
        if row is not None and not all(isinstance(value, str) for value in row):
            raise StoreError(f"the store {self.path} has an answer that is no text. {self.how_to_drop(key)}")
        return None if row is None else Answer(*row)

    def _claim(self, connection: Connection, key: str, seconds: float) -> Answer | bool:
        now = self.now(connection)
        owner, until = statements.CLAIMED.on(connection, {"key": key}).row or ("", 0.0)
        if owner not in ("", self.owner) and processes.holds(owner, until, now):
            return False
        values = {"key": key, "owner": self.owner, "expires": now + seconds, "gone": owner, "then": until}
        if statements.CLAIM.on(connection, values).rowcount != 1:  # claimed since it was looked up
            return False
        if (answer := self._answer(connection, key)) is None:
            return True
        statements.RELEASE.on(connection, values)  # answered since it was looked up
        return answer

    def now(self, connection: Connection) -> float:
        """Seconds since 1970, by the clock that decides about leases."""
        clock = self.engine.clock
        now = () if clock is None else clock.on(connection, {}).row
        return now[0] if now else time.time()

    @property
    def owner(self) -> str:
        """Whose leases are this store's, in this process."""
        return f"{processes.HOST}:{os.getpid()}:{self._token}"  # another one after a fork


def _identity(file: Path | None) -> tuple[int, int] | None:
    """What tells a file from another one of its name: what is written to one that was deleted would be lost."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)
