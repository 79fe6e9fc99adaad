"""FastAPI and uvicorn, several worker processes: each with the batcher of fastapi_server.py and one thread."""

import uvicorn
from classifier import settings_given
from fastapi import FastAPI
from fastapi_server import UVICORN, application


def app() -> FastAPI:
    return application(threads=1)


if __name__ == "__main__":
    settings = settings_given()
    uvicorn.run("fastapi_workers:app", factory=True, workers=settings.workers, port=settings.port, **UVICORN)
