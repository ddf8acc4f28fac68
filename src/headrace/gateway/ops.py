"""What operators and tools ask: is it alive, is it ready, what is served here."""

from __future__ import annotations

from typing import Any

from headrace.supervisor.catalog import Catalog
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.fleet import FleetState
from headrace.supervisor.pool import Pool


def health() -> dict[str, Any]:
    """`GET /health`: the process answers; nothing is said of the apps."""
    return {"status": "ok"}


def ready(dispatcher: Dispatcher) -> tuple[int, dict[str, Any]]:
    """`GET /ready`: 200 when every app has a ready runner and the server is not stopping, else 503."""
    pools = dispatcher.catalog.pools
    apps = {name: _condition(pool) for name, pool in pools.items()}
    is_ready = not dispatcher.is_draining and all(pool.fleet.state is FleetState.READY for pool in pools.values())
    return (200 if is_ready else 503), {"ready": is_ready, "stopping": dispatcher.is_draining, "apps": apps}


def _condition(pool: Pool) -> dict[str, Any]:
    fleet = pool.fleet
    condition: dict[str, Any] = {"state": fleet.state.value, "runners": fleet.working, "waiting": pool.waiting}
    if fleet.fault is not None:
        condition["fault"] = fleet.fault
    return condition


def apps(catalog: Catalog) -> dict[str, Any]:
    """`GET /v1/apps`: every app, its state, and which views each endpoint has."""
    return {
        "apps": [
            {
                "name": app.name,
                "doc": app.doc,
                "state": catalog.pools[app.name].fleet.state.value,
                "aliases": [new for new, old in catalog.routes.aliases.items() if old == app.name],
                "endpoints": [
                    {
                        "path": endpoint.path,
                        "doc": endpoint.doc,
                        "views": {
                            "run": _full(app.name, endpoint.run_path),
                            "stream": _full(app.name, endpoint.stream_path),
                            "queue": f"/queue/{app.name}{endpoint.queue_path}",
                        },
                    }
                    for endpoint in app.endpoints
                ],
            }
            for app in catalog.routes.apps.values()
        ]
    }


def _full(app: str, path: str | None) -> str | None:
    return None if path is None else f"/{app}{path}"
