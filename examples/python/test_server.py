"""A test of a server in asyncio: ``python test_server.py``, or by pytest.

The server is a pipeline behind a shell, as servers often are; the test cannot leave any of it.
"""

import asyncio
import sys
import unittest

from tidy_process import aio, free_port


class ServerTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.port = free_port()
        command = f"exec {sys.executable} -m http.server --bind 127.0.0.1 {self.port} 2>&1 | cat"
        self.server = await aio.create_subprocess_exec("sh", "-c", command, stdout=-3)
        self.addAsyncCleanup(self.server.finish)
        ready = self.server.popen.wait_ready
        await asyncio.get_running_loop().run_in_executor(None, lambda: ready(port=self.port))

    async def test_it_answers(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"200 OK", await reader.readline())
        writer.close()

    async def test_it_ends_with_the_test(self) -> None:
        report = await self.server.finish()
        assert report is not None
        with self.assertRaises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", self.port)


if __name__ == "__main__":
    unittest.main()
