"""Ray Serve under the measurements of common.py: a `@serve.batch` method, called on the replica's own event loop and,
through a `DeploymentHandle`, from another process. Settings are Ray's own, but for the log of requests, which is off.
"""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import common
import ray
from ray import serve


# As many as there may be at once, so that none waits in the router: the batching is what is measured.
@serve.deployment(max_ongoing_requests=10_000_000, ray_actor_options={"num_cpus": 0})
class Noop:
    def __init__(self):
        self.model = common.Model()

    @serve.batch(max_batch_size=common.BATCH, batch_wait_timeout_s=0)
    async def step(self, ids):
        return await self.model.step_async(ids)

    async def __call__(self, id):
        return await self.step(id)

    async def measure(self):
        client = common.Client(self.model, self.step)
        return await common.everything(client, burst_n=100_000, closed_n=50_000, queued=10_000)

    async def tell_model(self, name, *args):
        return getattr(self.model, name)(*args)


class RemoteModel:
    """The replica's model, as the measurements want it."""

    def __init__(self, handle):
        self.handle, self.blocked = handle, False
        self.gate = SimpleNamespace(is_set=lambda: not self.blocked)
        self.thread = ThreadPoolExecutor(1)  # on an event loop's thread, result() is refused

    def tell(self, *args):
        return self.thread.submit(lambda: self.handle.tell_model.remote(*args).result()).result()

    def block(self):
        self.blocked = True
        self.tell("block")

    def let_go(self):
        self.tell("let_go")
        self.blocked = False

    def is_stepping(self):
        return self.tell("is_stepping")

    def executed(self, ids):
        return self.tell("executed", list(ids))


class Client:
    settle_s = 10.0

    def __init__(self, handle):
        self.handle, self.model = handle, RemoteModel(handle)

    def submit(self, id):
        return SimpleNamespace(response=self.handle.remote(id), future=None)

    def future(self, request):
        request.future = request.future or asyncio.ensure_future(self._end(request.response))
        return request.future

    async def _end(self, response):
        return await response

    def cancel(self, request):
        request.response.cancel()

    async def call(self, id):
        return await self.handle.remote(id)

    async def call_within(self, id, seconds):
        response = self.handle.remote(id)
        try:
            await asyncio.wait_for(response, seconds)
        except TimeoutError:
            response.cancel()
            raise

    async def finish(self, requests):
        await asyncio.wait([self.future(request) for request in requests])


async def through_handle(handle):
    return await common.everything(Client(handle), burst_n=5000, closed_n=5000, queued=5000)


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 << 20)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # it logs each cancel
    quiet = {"enable_access_log": False, "log_level": "ERROR"}
    handle = serve.run(Noop.bind(), route_prefix=None, logging_config=quiet)
    rows = {
        "ray, in the replica": handle.measure.remote().result(),
        "ray, DeploymentHandle": asyncio.run(through_handle(handle)),
    }
    serve.shutdown()
    ray.shutdown()
    print(json.dumps({"version": ray.__version__, "rows": rows}))
