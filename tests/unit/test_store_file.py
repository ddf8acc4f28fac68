"""The store's file: whose it is, who may read it, how its tables are made, and what the operator is told."""

import asyncio
import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import headrace.store.sqlite.requests
from headrace.store.port import StoreFault, StoreLocked, StoreTooNew, StoreUnavailable
from headrace.store.sqlite import Durability, SqliteStore, StoreSettings, file, sql
from headrace.store.sqlite.sql import SQL
from tests.support.stores import a_request, a_store, started

FOLDER = Path(headrace.store.sqlite.requests.__file__).parent


def query(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


# --- the statements -------------------------------------------------------------------------------------------


def test_every_statement_is_one_that_the_tables_understand(tmp_path):
    with contextlib.closing(file.connect(tmp_path / "x.db", "rwc")) as connection:
        file.migrate(connection, sql.migrations(), tmp_path)
        for name, statement in SQL.items():
            named = {parameter: None for parameter in re.findall(r":(\w+)", statement)}
            connection.execute(f"EXPLAIN {statement}", named or [None] * statement.count("?")).fetchall()
            assert statement.startswith("-- "), f"{name} does not say what it is for"


def test_every_statement_is_used():
    source = "".join(module.read_text() for module in FOLDER.glob("*.py"))

    assert [name for name in SQL if f'"{name}"' not in source] == []


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("look", "sqlite_autoindex_requests_1 (id=?)"),
        ("position", "SEARCH better USING COVERING INDEX queued (app=? AND priority<?)"),
        ("position", "SEARCH older USING COVERING INDEX queued (app=? AND priority=? AND number<?)"),
        ("open_requests", "INDEX unfinished (number>?)"),
        ("abandoned", "INDEX unfinished"),
        ("find_idempotent", "INDEX idempotent (idempotency_key=? AND app=? AND endpoint=? AND <expr>=?)"),
        ("aged", "INDEX spare (is_large=? AND spare_since>? AND spare_since<?)"),
        ("oldest", "INDEX spare (is_large=?"),
        ("read_events", "INDEX events_of_request (request=? AND first>?)"),
        ("due_deliveries", "INDEX due (next_at<?)"),
        ("old_letters", "COVERING INDEX buried (buried_at<?)"),
    ],
)
def test_what_is_asked_often_never_looks_at_every_request(tmp_path, name, index):
    with contextlib.closing(file.connect(tmp_path / "x.db", "rwc")) as connection:
        file.migrate(connection, sql.migrations(), tmp_path)
        named = {parameter: None for parameter in re.findall(r":(\w+)", SQL[name])}
        plan = connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", named or [None] * SQL[name].count("?"))
        steps = [row[3] for row in plan]

    assert any(index in step for step in steps), steps
    assert not any(re.fullmatch(r"SCAN (requests|events|outbox)( AS \w+)?", step) for step in steps), steps


def test_two_statements_of_one_name_are_a_mistake():
    with pytest.raises(ValueError, match="same name"):
        sql.parse("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;")


# --- the folder -----------------------------------------------------------------------------------------------


def test_nobody_else_can_read_what_is_stored(tmp_path):
    before = os.umask(0)
    try:

        async def go():
            async with a_store(tmp_path / "new") as store:
                await store.submit(a_request())
                await store.get("x")
                return {entry.name: entry.stat().st_mode & 0o777 for entry in (tmp_path / "new").iterdir()}

        modes = asyncio.run(go())
    finally:
        os.umask(before)

    assert modes == dict.fromkeys(["node.lock", "requests.db", "requests.db-wal", "requests.db-shm"], 0o600)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path):
    asyncio.run(SqliteStore(tmp_path).close())
    (tmp_path / "requests.db").chmod(0o644)
    asyncio.run(SqliteStore(tmp_path).close())

    assert (tmp_path / "requests.db").stat().st_mode & 0o777 == 0o600


def test_a_second_node_is_told_who_holds_the_folder(tmp_path):
    hold = f"""
import asyncio, sys, pathlib
from headrace.store.sqlite import SqliteStore
store = SqliteStore(pathlib.Path({str(tmp_path)!r}))
print("open", flush=True)
sys.stdin.read()
asyncio.run(store.close())
"""
    holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreLocked) as caught:
            SqliteStore(tmp_path)
        holder.stdin.close()
        assert holder.wait(30) == 0
    asyncio.run(SqliteStore(tmp_path).close())

    assert caught.value.holder == holder.pid
    assert str(caught.value) == (
        f"{tmp_path}: process {holder.pid} serves from it; stop that one first, or choose another with --data-dir"
    )


def test_a_folder_that_could_not_be_opened_is_not_kept_locked(tmp_path):
    (tmp_path / "requests.db").write_bytes(b"this is no database" * 100)
    for _ in range(2):
        with pytest.raises(StoreFault, match="cannot be used") as caught:
            SqliteStore(tmp_path)
        assert not isinstance(caught.value, StoreLocked)


def test_a_folder_that_cannot_be_made_is_told_with_a_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreFault, match=r"file/data.*cannot be opened \(Not a directory\); check the folder's owner"
    ):
        SqliteStore(tmp_path / "file" / "data")


def test_closing_twice_is_harmless_and_a_closed_store_says_so(tmp_path):
    async def go():
        store = SqliteStore(tmp_path)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.submit(a_request())
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.get("x")

    asyncio.run(go())


def test_closing_does_what_waits(tmp_path):
    async def go():
        store = SqliteStore(tmp_path)
        submits = [asyncio.create_task(store.submit(a_request(f"r{i}"))) for i in range(100)]
        await asyncio.sleep(0)
        await store.close()
        return await asyncio.gather(*submits)

    asyncio.run(go())

    assert query(tmp_path / "requests.db", "SELECT count(*) FROM requests") == [(100,)]
    assert not (tmp_path / "requests.db-wal").exists()


@pytest.mark.parametrize(("durability", "level"), [(Durability.FULL, 2), (Durability.FAST, 1)])
def test_durability_says_when_the_disk_is_synced(tmp_path, durability, level):
    path = tmp_path / "requests.db"
    file.create(path)
    with contextlib.closing(
        file.open_writer(path, StoreSettings(durability=durability), file.connect)
    ) as connection:
        found = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "wal_autocheckpoint")
        ]

    assert found == [level, "wal", 0]


def test_a_reader_cannot_write(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            with pytest.raises(StoreUnavailable, match="readonly"):
                await store._readers.read(lambda on: on.execute("DELETE FROM requests"))
            return await store.get("x")  # the next one reads all the same

    assert asyncio.run(go()) is None


# --- migrations -----------------------------------------------------------------------------------------------


def test_migrations_are_numbered_without_a_gap():
    found = sorted(script.name for script in (FOLDER / "migrations").iterdir())

    assert found == [f"{number:04}.sql" for number in range(1, len(sql.migrations()) + 1)]


def test_a_file_comes_to_the_version_of_the_code_step_by_step(tmp_path):
    path = tmp_path / "x.db"
    scripts = ["CREATE TABLE a (x);", "ALTER TABLE a ADD y; INSERT INTO a VALUES (1, 2);"]
    with contextlib.closing(file.connect(path, "rwc")) as connection:
        file.migrate(connection, scripts[:1], path)
        file.migrate(connection, scripts, path)
        file.migrate(connection, scripts, path)

    assert query(path, "PRAGMA user_version") == [(2,)]
    assert query(path, "SELECT * FROM a") == [(1, 2)]


def test_a_migration_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "x.db"
    with contextlib.closing(file.connect(path, "rwc")) as connection:
        with pytest.raises(sqlite3.OperationalError):
            file.migrate(connection, ["CREATE TABLE a (x);", "CREATE TABLE b (x); SELECT nonsense;"], path)
        assert not connection.in_transaction

    assert query(path, "PRAGMA user_version") == [(1,)]
    assert query(path, "SELECT name FROM sqlite_master") == [("a",)]


def test_the_file_of_a_later_version_is_left_alone(tmp_path):
    async def fill():
        async with a_store(tmp_path) as store:
            await started(store)

    asyncio.run(fill())
    with contextlib.closing(sqlite3.connect(tmp_path / "requests.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (tmp_path / "requests.db").read_bytes()

    with pytest.raises(
        StoreTooNew, match=r"later Headrace \(tables of version 99, we know \d+\); install"
    ) as caught:
        SqliteStore(tmp_path)

    assert isinstance(caught.value, StoreFault)
    assert (tmp_path / "requests.db").read_bytes() == before
