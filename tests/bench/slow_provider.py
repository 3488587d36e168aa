"""A provider that takes every text and answers after 50 ms, and costs next to nothing: for measuring the sender.

python -m tests.bench.slow_provider    prints its port, then serves until its input ends
"""

import asyncio
import json
import re
import secrets
import sys

ANSWERS_AFTER = 0.05
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(LENGTH.search(head)[1]))
            await asyncio.sleep(ANSWERS_AFTER)
            body = json.dumps({"sid": "SM" + secrets.token_hex(16), "status": "accepted"}).encode()
            writer.write(
                b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            )
            writer.write(body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
