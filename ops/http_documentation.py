"""The page of the OpenAPI description: Swagger UI, all of whose files the node serves itself."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Headwater</title>
<link rel="icon" href="/docs/favicon.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="operations"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#operations", deepLinking: true, validatorUrl: null});\n'
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles of its own on its elements, and its style sheet holds pictures."""
FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


def documentation_routes() -> APIRouter:
    """The page `/docs` and its files; none of them is part of the description."""
    routes = APIRouter(include_in_schema=False)
    static = files("fastapi_offline") / "static"

    @routes.get("/docs")
    async def get_page() -> Response:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})

    @routes.get("/docs/start.js")
    async def get_start() -> Response:
        return Response(START, media_type="text/javascript")

    def serve(name: str, media_type: str) -> None:
        @routes.get(f"/docs/{name}")
        async def get_file() -> Response:
            return FileResponse(str(static / name), media_type=media_type)

    for name, media_type in FILES.items():
        serve(name, media_type)
    return routes
