"""A server that answers as Grafana's HTTP API is documented to: folders, data sources, dashboards, tokens.

It is not Grafana. None is to be had as a Debian, Python or npm package, so this is written from the published
description of the API (versions 10 to 12): status codes, bodies' fields, and that every save of a dashboard
is a new version.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "glsa_right"


class Grafana:
    def __init__(self) -> None:
        self.folders: dict[str, dict[str, Any]] = {}
        self.datasources: dict[str, dict[str, Any]] = {}  # by name
        self.dashboards: dict[str, list[dict[str, Any]]] = {}  # by uid, all versions
        self.asked: list[str] = []
        self.broken: tuple[int, str] | None = None  # what it answers to everything
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                outer.asked.append(f"{self.command} {self.path}")
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, said = 401, {"message": "Invalid API key"}
                else:
                    status, said = outer.broken or outer.route(self.command, self.path, body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write((said if isinstance(said, str) else json.dumps(said)).encode())

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def route(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        kind, *rest = path.removeprefix("/api/").split("/")
        return getattr(self, f"{method.lower()}_{kind}")(rest, body)

    def get_folders(self, rest: list[str], _: Any) -> tuple[int, Any]:
        if rest[0] not in self.folders:
            return 404, {"message": "folder not found", "status": "not-found"}
        return 200, self.folders[rest[0]]

    def post_folders(self, _: list[str], body: Any) -> tuple[int, Any]:
        if body["uid"] in self.folders:
            return 412, {"message": "the folder has been changed by someone else", "status": "version-mismatch"}
        self.folders[body["uid"]] = {"id": 1, "uid": body["uid"], "title": body["title"], "version": 1}
        return 200, self.folders[body["uid"]]

    def get_datasources(self, rest: list[str], _: Any) -> tuple[int, Any]:
        if rest[0] != "name" or rest[1] not in self.datasources:
            return 404, {"message": "Data source not found"}
        return 200, self.datasources[rest[1]]

    def post_datasources(self, _: list[str], body: Any) -> tuple[int, Any]:
        if body["name"] in self.datasources:
            return 409, {"message": "data source with the same name already exists"}
        self.datasources[body["name"]] = {"id": 1, "orgId": 1, "isDefault": False, "readOnly": False, **body}
        return 200, {"id": 1, "message": "Datasource added", "name": body["name"]}

    def put_datasources(self, rest: list[str], body: Any) -> tuple[int, Any]:
        found = [each for each in self.datasources.values() if ["uid", each["uid"]] == rest]
        if not found:
            return 404, {"message": "Data source not found"}
        found[0].update(body)
        return 200, {"id": 1, "message": "Datasource updated", "name": body["name"]}

    def get_dashboards(self, rest: list[str], _: Any) -> tuple[int, Any]:
        if rest[0] != "uid" or rest[1] not in self.dashboards:
            return 404, {"message": "Dashboard not found"}
        versions = self.dashboards[rest[1]]
        return 200, {"dashboard": versions[-1], "meta": {"version": len(versions), "folderUid": "shoal"}}

    def post_dashboards(self, _: list[str], body: Any) -> tuple[int, Any]:
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found", "status": "not-found"}
        uid = body["dashboard"]["uid"]
        if uid in self.dashboards and not body["overwrite"]:
            return 412, {
                "message": "The dashboard has been changed by someone else",
                "status": "version-mismatch",
            }
        self.dashboards.setdefault(uid, []).append(body["dashboard"])
        number = len(self.dashboards[uid])
        return 200, {"id": 1, "uid": uid, "url": f"/d/{uid}/shoal", "status": "success", "version": number}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
