"""None of these leaves a process, though each has one at some time."""

import multiprocessing
import subprocess
import time
from multiprocessing import shared_memory

import pytest


def test_nothing():
    pass


def test_run():
    subprocess.run(["true"], check=True)


def test_it_ends_a_moment_later():
    subprocess.Popen(["sleep", "60"]).terminate()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing(method):
    process = multiprocessing.get_context(method).Process(target=print)
    process.start()
    process.join()


def test_shared_memory():
    # It starts multiprocessing's resource tracker, which stays.
    memory = shared_memory.SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()


@pytest.fixture(scope="session")
def session_server():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def module_server():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def nested(request):
    process = subprocess.Popen(["sleep", "60"])
    # Begun by a fixture of one test, and ended by the session.
    request.getfixturevalue("session_server")
    yield
    process.kill()
    process.wait()


def test_nested(nested):
    pass


def test_servers(session_server, module_server):
    assert session_server.poll() is None
    assert module_server.poll() is None


def test_servers_again(session_server, module_server):
    test_servers(session_server, module_server)


class TestClass:
    @classmethod
    def setup_class(cls):
        cls.process = subprocess.Popen(["sleep", "60"])

    @classmethod
    def teardown_class(cls):
        cls.process.kill()
        cls.process.wait()

    def test_one(self):
        assert self.process.poll() is None

    def test_two(self):
        assert self.process.poll() is None


def test_tidy_fixtures(tidy_server, tidy_port):
    server = tidy_server(["python3", "-m", "http.server", str(tidy_port)], port=tidy_port)
    assert server.poll() is None
    assert [port.port for port in server.ports()] == [tidy_port]


def test_slow_end():
    process = subprocess.Popen(["sleep", "0.01"])
    time.sleep(0.01)
    process.wait()
