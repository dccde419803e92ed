"""BentoML under the measurements of common.py, in one process: its adaptive batching alone (`CorkDispatcher`, the class
behind `batchable=True`), and a whole service without sockets (`to_asgi()`, called through httpx).
"""

import asyncio
import json

import bentoml
import common
import httpx
from bentoml._internal.marshal.dispatcher import CorkDispatcher

LATENCY_MS = 600_000  # so that nothing is shed while the model is blocked
model = common.Model()


@bentoml.service(metrics={"enabled": False}, logging={"access": {"enabled": False}}, traffic={"timeout": 600})
class Noop:
    @bentoml.api(batchable=True, max_batch_size=common.BATCH, max_latency_ms=LATENCY_MS)
    async def step(self, ids: list[int]) -> list[int]:
        return await model.step_async(ids)


def overloaded():
    raise RuntimeError("shed")


async def main():
    dispatcher = CorkDispatcher(LATENCY_MS, common.BATCH, fallback=overloaded, get_batch_size=lambda _: 1)
    client = common.Client(model, dispatcher(model.step_async))
    rows = {"bentoml, CorkDispatcher": await common.everything(client, burst_n=100_000, closed_n=50_000, queued=10_000)}

    app = Noop.to_asgi()
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, timeout=None) as http:

        async def call(id):
            response = await http.post("http://localhost/step", json={"ids": [id]})
            return response.raise_for_status().json()[0]

        client = common.Client(model, call)
        client.settle_s = 5  # a request has a long way to the queue, on the same loop
        rows["bentoml, to_asgi()"] = await common.everything(client, burst_n=2000, closed_n=2000, queued=2000)
    print(json.dumps({"version": bentoml.__version__, "rows": rows}))


asyncio.run(main())
