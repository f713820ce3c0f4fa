"""Servers that answer with the bytes that they are told to."""

import contextlib
import socket
import threading
from concurrent import futures

import grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tests.serving.servers import LOCALHOST

# Often enough for no byte to be late, and no more than a few seconds' worth, so that a
# client without a deadline fails a test instead of holding it.
BYTES, EVERY = 100, 0.03


def reply(body, *headers, status="200 OK"):
    """The bytes of an HTTP answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextlib.contextmanager
def http_server(*answers, drip=None):
    """Yields an address and the list of requests that it has received.

    Args:
        *answers: bytes, of the first request, the second and so on; the last of all
            that follow.
        drip: bytes that are sent behind the last of them, again and again, one at a
            time; `None` for none.
    """
    received, connections, stopped = [], [], threading.Event()

    def talk(connection):
        with connection, contextlib.suppress(OSError):
            while request := _read_request(connection):
                received.append(request)
                place = min(len(received), len(answers)) - 1
                connection.sendall(answers[place])
                if drip is not None and place == len(answers) - 1:
                    for n in range(BYTES):
                        if stopped.wait(EVERY):
                            return
                        connection.sendall(drip[n % len(drip)].to_bytes())
                    return

    listening = socket.create_server((LOCALHOST, 0))
    pool = futures.ThreadPoolExecutor()

    def listen():
        while not stopped.is_set():
            connection, _ = listening.accept()
            connections.append(connection)
            pool.submit(talk, connection)

    thread = threading.Thread(target=listen)
    thread.start()
    port = listening.getsockname()[1]
    try:
        yield f"http://{LOCALHOST}:{port}", received
    finally:
        stopped.set()
        socket.create_connection((LOCALHOST, port)).close()
        thread.join()
        listening.close()
        for connection in connections:
            # A client that failed may keep its own as long as its error is kept.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        pool.shutdown()


def _read_request(connection):
    """Bytes of a request; empty when there is none any more."""
    request = b""
    while b"\r\n\r\n" not in request:
        part = connection.recv(1 << 16)
        if not part:
            return b""
        request += part
    head, _, body = request.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += connection.recv(1 << 16)
    return head + b"\r\n\r\n" + body


class _Saying(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, answer):
        self.answer = answer

    def Predict(self, request, context):
        return self.answer

    def Regress(self, request, context):
        return self.answer


@contextlib.contextmanager
def grpc_server(answer):
    """Yields the address of a service that says this message."""
    pool = futures.ThreadPoolExecutor(1)
    service = grpc.server(pool, options=[("grpc.max_send_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Saying(answer), service
    )
    port = service.add_insecure_port(f"{LOCALHOST}:0")
    service.start()
    try:
        yield f"{LOCALHOST}:{port}"
    finally:
        service.stop(None).wait()
